document.querySelector('#token').focus();
// A link from another site brings no cookie with it, so its first request ends here. Requests from this page do.
const answer = await fetch('/login');
if (answer.redirected) location.replace('/' + location.hash);
// The part after # reaches the page again after the form has been sent.
document.querySelector('#login').action = '/login' + location.hash;

for (const part of document.querySelectorAll('section.film')) {
  const film = part.querySelector('video'), seconds = Number(part.dataset.duration);
  const heads = part.querySelectorAll('.head'), buttons = part.querySelectorAll('button[data-start]');
  let end = null;
  const go = (start, until) => { film.currentTime = start; end = until; film.play().catch(() => {}); };
  for (const button of buttons) button.addEventListener('click', event => {
    event.stopPropagation();
    for (const other of buttons) other.classList.toggle('on', other === button);
    go(Number(button.dataset.start), Number(button.dataset.end));
    film.scrollIntoView({block: 'nearest'});
  });
  for (const track of part.querySelectorAll('.seek')) track.addEventListener('click', event => {
    const box = track.getBoundingClientRect();
    go((event.clientX - box.left) / box.width * seconds, null);
  });
  film.addEventListener('timeupdate', () => {
    for (const head of heads) head.style.left = 100 * film.currentTime / seconds + '%';
    if (end !== null && film.currentTime >= end) { film.pause(); end = null; }
  });
  film.addEventListener('error', () => { part.querySelector('.gone').hidden = false; }, true);
}

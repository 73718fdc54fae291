// The list beside the player: the videos of the collection, or the moments of a search.

import {thumbnailAddress} from './api.js';
import {address, certainty, certaintyText, count, sentence, similarityText, span} from './text.js';
import {element} from './timeline.js';

const list = document.querySelector('#results'), title = document.querySelector('#found-title');
const note = document.querySelector('#found-note'), more = document.querySelector('#more');

function card(link, picture, ...lines) {
  const image = element('img', {className: 'picture', src: picture, alt: '', loading: 'lazy', width: 320, height: 180});
  // In place of a sign of a broken picture.
  image.addEventListener('error', () => image.replaceWith(element('span', {className: 'picture'})));
  return element('li', {}, element('a', {href: link}, image, element('span', {className: 'about'}, ...lines)));
}

const line = (text, className) => element('span', {className, title: className.startsWith('name') ? text : ''}, text);

// Show videos after those that are shown already, if there are any.
export function showVideos(page, offset) {
  title.textContent = 'Videos';
  const cards = page.videos.map(video => card(
    address(video.id), thumbnailAddress(video.id, 1), line(video.name, 'name'),
    line(video.prepared ? '' : 'not prepared', 'soft')));
  if (offset === 0) list.replaceChildren();
  list.append(...cards);
  more.hidden = offset + cards.length >= page.total;
  note.textContent = page.total === 0 ? 'There are no videos yet.' : '';
}

// Show the moments of a search with a certainty of at least `least`.
export function showFound(answer, least) {
  title.textContent = 'Moments';
  more.hidden = true;
  const shown = answer.results.filter(moment => certainty(moment) >= least);
  list.replaceChildren(...shown.map(moment => card(
    address(moment.video, moment, answer.query), thumbnailAddress(moment.video, (moment.start + moment.end) / 2),
    line(span(moment), 'span'), line(certaintyText(moment), 'sure'), line(moment.name, 'name soft'),
    ...[similarityText(moment)].filter(text => text).map(text => line(text, 'similar soft')))));
  note.textContent = shown.length || !answer.results.length ? '' : noneText(answer.results);
  return shown.length;
}

export function noneText(moments) {
  const best = moments.reduce((one, other) => (certainty(other) > certainty(one) ? other : one));
  return `No confident answer. The best one: ${span(best)}, ${certaintyText(best)}.`;
}

// Mark the card of the video that the player shows.
export function markCard(hash) {
  for (const link of list.querySelectorAll('a')) {
    if (hash && link.getAttribute('href') === hash) link.setAttribute('aria-current', 'true');
    else link.removeAttribute('aria-current');
  }
}

export function summary(answer, shown) {
  const videos = count(answer.searched, 'video');
  const rest = answer.unprepared ? ` ${count(answer.unprepared, 'video')} not prepared and not searched.` : '';
  return [`${count(shown, 'moment')} in ${videos}.${rest}`, ...answer.warnings.map(sentence)].join(' ');
}

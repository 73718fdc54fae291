// The time axis below the player: the saliency curve, bars that seek, and the list of moments.

import {address, certaintyText, span} from './text.js';
import {clipAddress} from './api.js';

const LONGEST_CLIP = 300;  // seconds
const LANES = 3;

export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

// Draw saliency values of the first `seen` seconds of a video that is `duration` seconds long.
export function drawCurve(svg, values, seen, duration) {
  svg.toggleAttribute('hidden', values.length === 0);
  const low = Math.min(...values), spread = Math.max(Math.max(...values) - low, 1e-9);
  const right = 1000 * Math.min(seen / duration, 1);
  const points = values.map((value, number) => {
    const x = right * (number + 0.5) / values.length, y = 38 - 36 * (value - low) / spread;
    return `${x.toFixed(1)},${y.toFixed(1)}`;
  });
  svg.querySelector('polyline').setAttribute('points', points.join(' '));
}

// Return the lane of each moment: the first one where it overlaps no better moment, or the last lane.
function lanes(moments) {
  const taken = Array.from({length: LANES}, () => []);
  return moments.map(moment => {
    const free = taken.findIndex(others => others.every(one => moment.end <= one.start || moment.start >= one.end));
    const lane = free < 0 ? LANES - 1 : free;
    taken[lane].push(moment);
    return lane;
  });
}

// Draw a bar for each moment.
export function drawBars(bars, moments, duration, choose) {
  const lane = lanes(moments);
  bars.style.setProperty('--lanes', Math.max(...lane, 0) + 1);
  bars.replaceChildren(...moments.map((moment, number) => {
    const bar = element('button', {type: 'button', title: span(moment)});
    bar.dataset.number = number;
    bar.setAttribute('aria-label', `Moment ${number + 1}: ${span(moment)}`);
    bar.classList.toggle('best', number === 0);
    bar.style.setProperty('--lane', lane[number]);
    bar.style.left = `${Math.min(100 * moment.start / duration, 99.5)}%`;
    bar.style.width = `${Math.min(100 * (moment.end - moment.start) / duration, 100)}%`;
    bar.addEventListener('click', () => choose(number));
    return bar;
  }));
}

export function listMoments(list, moments, {video, query, choose}) {
  list.replaceChildren(...moments.map((moment, number) => {
    const play = element('button', {type: 'button', className: 'moment'},
      element('b', {}, span(moment)), element('span', {className: 'soft'}, certaintyText(moment)));
    play.dataset.number = number;
    play.setAttribute('aria-label', `Play ${span(moment)}, ${certaintyText(moment)}`);
    play.addEventListener('click', () => choose(number));
    const end = Math.min(moment.end, moment.start + LONGEST_CLIP);
    const cut = element('a', {href: clipAddress(video, moment.start, end) + '&download=true', download: ''}, 'Download');
    cut.setAttribute('aria-label', `Download ${span(moment)} as a clip`);
    const link = element('a', {href: address(video, moment, query)}, 'Link');
    link.setAttribute('aria-label', `Link to ${span(moment)}`);
    return element('li', {}, play, cut, link);
  }));
}

// Mark the chosen moment in the bars and in the list.
export function mark(number, ...places) {
  for (const place of places)
    for (const button of place.querySelectorAll('button[data-number]')) {
      const chosen = Number(button.dataset.number) === number;
      button.classList.toggle('on', chosen);
      if (chosen) button.setAttribute('aria-current', 'true');
      else button.removeAttribute('aria-current');
    }
}

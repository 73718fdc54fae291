// The player with the answer about one video: saliency curve, bars, list of moments.

import {locate, videoDetails} from './api.js';
import {follow, problemOf} from './jobs.js';
import {Player} from './player.js';
import {noneText} from './results.js';
import {address, certainty, clock, sentence} from './text.js';
import {drawBars, drawCurve, listMoments, mark} from './timeline.js';

const find = name => document.querySelector(name);
const viewer = find('#viewer'), bars = find('#bars'), list = find('#moments'), position = find('#position');
const note = find('#answer-note');
let dragging = false;

const player = new Player(find('#film'), find('#film-note'), {
  onTime(time) {
    if (!dragging) position.value = time;
    position.setAttribute('aria-valuetext', clock(time));
    find('#clock').textContent = clock(time);
  },
  onState(film) {
    find('#play').textContent = film.paused ? 'Play' : 'Pause';
    find('#mute').setAttribute('aria-pressed', film.muted);
  },
});

find('#play').addEventListener('click', () => player.toggle());
find('#mute').addEventListener('click', () => { player.film.muted = !player.film.muted; });
find('#full').addEventListener('click', () => player.film.requestFullscreen?.().catch(() => {}));
document.addEventListener('fullscreenchange', () => { player.film.controls = document.fullscreenElement !== null; });
find('#film').addEventListener('click', () => player.toggle());
position.addEventListener('input', () => { dragging = true; find('#clock').textContent = clock(Number(position.value)); });
position.addEventListener('change', () => { dragging = false; player.seek(Number(position.value)); });

export const current = {video: null, query: '', answer: null, shown: [], chosen: -1};
let latest = 0;

// Open a video and show its answer to a query, if there is one. Returns whether this is still what is wanted.
export async function open(id, query) {
  const turn = ++latest;
  if (current.video?.id !== id) {
    const details = await videoDetails(id);
    if (turn !== latest) return false;
    Object.assign(current, {video: details, query: '', answer: null});
    showVideo(details);
  }
  if (query && (query !== current.query || !current.answer)) {
    const answer = await ask(id, query, turn);
    if (turn !== latest) return false;
    Object.assign(current, {query, answer});
  }
  return turn === latest;
}

async function ask(id, query, turn) {
  for (;;) {
    const {status, content} = await locate(id, query);
    if (status !== 202) return content;
    const job = await follow(content);
    const problem = problemOf(job, id);
    if (problem) throw new Error(problem);
    if (turn !== latest) return null;
  }
}

export function close() {
  latest += 1;
  current.video = current.answer = null;
  current.query = '';
  player.close();
  viewer.hidden = true;
}

function showVideo(video) {
  viewer.hidden = false;
  find('#viewer-title').textContent = video.name;
  const duration = video.duration ?? 0;
  setDuration(duration);
  player.open(video.id, duration, video.media_type !== null && player.film.canPlayType(video.media_type) !== '');
  if (!player.whole) player.seek(0);
  show(0);
}

function setDuration(duration) {
  position.max = duration;
  position.value = 0;
  find('#end').textContent = clock(duration);
  find('#clock').textContent = clock(0);
}

// Show the moments of the answer with a certainty of at least `least`.
export function show(least) {
  const {answer, video, query} = current;
  const duration = answer?.duration ?? video?.duration ?? 1;
  current.shown = answer ? answer.moments.filter(moment => certainty(moment) >= least) : [];
  current.chosen = -1;
  if (answer) player.duration = duration;
  if (answer) position.max = duration;
  if (answer) find('#end').textContent = clock(duration);
  drawCurve(find('#curve'), answer?.saliency ?? [], answer?.seen ?? 1, duration);
  drawBars(bars, current.shown, duration, choose);
  listMoments(list, current.shown, {video: video?.id, query, choose});
  const none = answer && !current.shown.length && answer.moments.length ? [noneText(answer.moments)] : [];
  note.textContent = [...none, ...(answer?.warnings ?? []).map(sentence)].join(' ');
}

// Play a moment of the list.
export function choose(number) {
  const moment = current.shown[number];
  if (!moment) return;
  current.chosen = number;
  mark(number, bars, list);
  history.replaceState(null, '', address(current.video.id, moment, current.query));
  player.seek(moment.start, {until: moment.end, play: true});
}

// Go to a position, and mark the moment that starts there.
export function goTo(start, end) {
  const number = current.shown.findIndex(moment => Math.abs(moment.start - start) < 0.02);
  current.chosen = number;
  mark(number, bars, list);
  player.seek(start, {until: end});
}

export function step(by) {
  if (current.shown.length) choose((current.chosen + by + current.shown.length) % current.shown.length);
}

export const toggle = () => player.toggle();

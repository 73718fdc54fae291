// Connects the parts of the page. Its address says which video and moment are shown: #video=ID&t=START-END&q=QUERY

import * as api from './api.js';
import {follow, problemOf} from './jobs.js';
import {markCard, showFound, showVideos, summary} from './results.js';
import {address, certainty, count, parsed} from './text.js';
import * as viewer from './viewer.js';

const find = name => document.querySelector(name);
const query = find('#query'), scope = find('#scope'), status = find('#status'), problem = find('#problem');
const least = find('#least');
let found = null;       // the answer to the last search
let shownVideos = 0;    // number of videos in the list
let collection = null;
let searches = 0;
let shownMoments = 0;   // number of moments in the list
let said = () => '';    // what the status line says about the last question

const ofFound = () => (found === null ? '' : summary(found, shownMoments));

function ofVideo() {
  const {answer, shown} = viewer.current;
  return answer ? `${count(shown.length, 'moment')} in ${answer.name}.` : '';
}

// Run an action of the user, and show its error if there is one.
async function act(action) {
  problem.textContent = '';
  try {
    await action();
  } catch (error) {
    status.textContent = '';
    problem.textContent = error.message;
  }
}

const wanted = () => Number(least.value) / 100;

function showThreshold() {
  const shown = found !== null || viewer.current.answer !== null;
  find('#threshold').hidden = !shown;
  const name = collection?.calibrated ? 'Least confidence' : 'Least score';
  find('label[for=least]').textContent = name;
  find('output[for=least]').textContent = collection?.calibrated ? `${least.value}%` : wanted().toFixed(2);
}

function refilter() {
  showThreshold();
  if (found !== null) shownMoments = showFound(found, wanted());
  if (viewer.current.answer !== null) viewer.show(wanted());
  status.textContent = said();
  markCard(location.hash);
}

async function listVideos(offset = 0) {
  collection = await api.listVideos(offset);
  shownVideos = offset + collection.videos.length;
  if (found === null) showVideos(collection, offset);
  const missing = collection.total - collection.prepared;
  find('#prepare').hidden = missing === 0;
  find('#prepare').textContent = `Prepare ${count(missing, 'video')}`;
  find('#add').hidden = collection.max_upload === null;
  find('#notes').textContent = collection.notes.join(' ');
  showThreshold();
}

async function searchAll(text) {
  const turn = ++searches;
  status.textContent = 'Searching…';
  const answer = await api.search(text);
  if (turn !== searches) return;
  found = answer;
  said = ofFound;
  refilter();
  if (!viewer.current.video) window.scrollTo({top: 0});
}

async function askOne(id, text) {
  status.textContent = text ? 'Asking the video…' : '';
  if (!await viewer.open(id, text)) return false;
  setScope(true);
  viewer.show(wanted());
  showThreshold();
  said = ofVideo;
  status.textContent = said();
  return true;
}

function setScope(one) {
  scope.querySelector('[value=one]').disabled = viewer.current.video === null;
  scope.value = one && viewer.current.video ? 'one' : 'all';
  document.body.classList.toggle('viewing', viewer.current.video !== null);
}

// Show what the address says.
async function followAddress() {
  const {video, query: text, start, end} = parsed(location.hash);
  if (!video) {
    closeVideo();
    return;
  }
  if (text) query.value = text;
  if (!await askOne(video, text)) return;
  if (start !== null) viewer.goTo(start, end);
  markCard(location.hash);
  find('#viewer-title').focus({preventScroll: true});
  const {top} = find('#viewer').getBoundingClientRect();
  if (top < 0 || top > innerHeight / 2) find('#viewer').scrollIntoView();
  listVideosIfEmpty();
}

function closeVideo() {
  viewer.close();
  setScope(false);
  showThreshold();
  if (said === ofVideo) {
    said = ofFound;
    status.textContent = said();
  }
  markCard('');
}

const listVideosIfEmpty = () => { if (collection === null) act(listVideos); };

async function prepareAll() {
  const job = await follow(await api.prepare());
  await listVideos();
  status.textContent = job.state === 'done' ? `${count(job.done - job.failed.length, 'video')} prepared.` : '';
  problem.textContent = problemOf(job);
}

find('#ask').addEventListener('submit', event => {
  event.preventDefault();
  const text = query.value.trim();
  const video = viewer.current.video;
  if (!text) return;
  act(async () => {
    if (scope.value === 'one' && video) {
      history.replaceState(null, '', address(video.id, null, text));
      await askOne(video.id, text);
    } else await searchAll(text);
  });
});
find('.brand').addEventListener('click', event => {
  event.preventDefault();
  if (location.hash) location.hash = '';
  found = null;
  query.value = status.textContent = '';
  act(listVideos);
});
find('#close').addEventListener('click', () => { location.hash = ''; query.focus(); });
find('#more').addEventListener('click', () => act(() => listVideos(shownVideos)));
find('#prepare').addEventListener('click', () => act(prepareAll));
find('#file').addEventListener('change', event => act(async () => {
  const [file] = event.target.files;
  if (!file) return;
  if (file.size > collection.max_upload) throw new Error('This file is larger than the server accepts.');
  status.textContent = `Uploading ${file.name}…`;
  await api.upload(file);
  event.target.value = '';
  await listVideos();
  status.textContent = `${file.name} was added.`;
}));
least.addEventListener('input', refilter);
window.addEventListener('hashchange', () => act(followAddress));
document.addEventListener('keydown', event => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.target.closest('input, select, textarea')) return;
  const action = {
    '/': () => query.focus(), n: () => viewer.step(1), p: () => viewer.step(-1), k: () => viewer.toggle(),
    Escape: () => { if (viewer.current.video) { location.hash = ''; query.focus(); } },
  }[event.key];
  if (!action || ('npk'.includes(event.key) && !viewer.current.video)) return;
  event.preventDefault();
  action();
});

await act(listVideos);
await act(followAddress);
await act(async () => {
  const [job] = await api.openJobs();
  if (job) problem.textContent = problemOf(await follow(job));
});

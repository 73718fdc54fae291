// Requests to the API. Errors are of the class Problem, with the text that the server gives.

export class Problem extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

async function request(method, path, body, type = 'application/json') {
  let answer;
  try {
    answer = await fetch('/api' + path, {method, body, headers: body ? {'Content-Type': type} : {}});
  } catch {
    throw new Problem(0, 'The server cannot be reached.');
  }
  if (answer.status === 401) location.assign('/login' + location.hash);
  const content = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Problem(answer.status, content.detail ?? `The server answered ${answer.status}.`);
  return {status: answer.status, content};
}

const get = async path => (await request('GET', path)).content;
const post = (path, body) => request('POST', path, JSON.stringify(body));

export const listVideos = offset => get(`/videos?limit=200&offset=${offset}`);
export const videoDetails = id => get(`/videos/${id}`);
export const search = async query => (await post('/search', {query, top: 60})).content;
export const locate = (video, query) => post('/locate', {video, query});
export const prepare = async () => (await post('/prepare', {videos: null})).content;
export const openJobs = async () => (await get('/jobs')).jobs;
export const jobStatus = id => get(`/jobs/${id}`);
export const cancelJob = async id => (await request('DELETE', `/jobs/${id}`)).content;
export const upload = async file =>
  (await request('POST', '/videos?name=' + encodeURIComponent(file.name), file, 'application/octet-stream')).content;

export const fileAddress = id => `/api/videos/${id}/file`;
export const thumbnailAddress = (id, time) => `/api/thumbnail/${id}?time=${time.toFixed(1)}`;
export const clipAddress = (id, start, end) => `/api/clip/${id}?start=${start.toFixed(2)}&end=${end.toFixed(2)}`;
export const previewAddress = (id, start, end) => clipAddress(id, start, end) + '&preview=true';
export const makePreview = (id, start, end) => fetch(previewAddress(id, start, end), {method: 'HEAD'}).catch(() => {});

// Shows how far the preparation of videos is, and lets it be cancelled.

import {cancelJob, jobStatus} from './api.js';
import {count} from './text.js';

const WAIT = 500;  // milliseconds between two questions about a job
const box = document.querySelector('#job'), text = document.querySelector('#job-text');
const share = document.querySelector('#job-share'), cancel = document.querySelector('#job-cancel');
let shown = null;

cancel.addEventListener('click', () => { if (shown !== null) cancelJob(shown).catch(() => {}); });

// Follow a job until it ends, and return how it ended.
export async function follow(job) {
  shown = job.id;
  box.hidden = false;
  try {
    while (job.state === 'waiting' || job.state === 'running') {
      const what = job.total === 1 ? 'Preparing the video' : `Preparing ${count(job.total, 'video')}, ${job.done} done`;
      text.textContent = `${what}: ${Math.round(100 * job.share)}%`;
      share.value = job.share;
      await new Promise(resolve => setTimeout(resolve, WAIT));
      job = await jobStatus(job.id);
    }
  } finally {
    if (shown === job.id) {
      box.hidden = true;
      shown = null;
    }
  }
  return job;
}

// Say why a job did not prepare everything, or one video if it is given; return nothing if it did.
export function problemOf(job, video) {
  if (job.state === 'failed') return job.problem;
  if (job.state === 'cancelled') return 'The preparation was cancelled.';
  const failed = video === undefined ? job.failed : job.failed.filter(one => one.video === video);
  if (!failed.length) return '';
  const rest = failed.length > 1 ? ` (and ${failed.length - 1} more)` : '';
  return `${failed[0].reason}${rest}`;
}

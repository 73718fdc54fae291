// Times and certainties as text.

export function clock(seconds) {
  const tenths = Math.round(seconds * 10), minutes = Math.floor(tenths / 600);
  const rest = ((tenths % 600) / 10).toFixed(1).padStart(4, '0');
  if (minutes < 60) return `${minutes}:${rest}`;
  return `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, '0')}:${rest}`;
}

export const span = moment => `${clock(moment.start)} – ${clock(moment.end)}`;

// The number that moments are ranked by: the confidence, or the score where there is no confidence.
export const certainty = moment => moment.confidence ?? moment.score;

export const certaintyText = moment =>
  moment.confidence === null ? `score ${moment.score.toFixed(2)}` : `${Math.round(100 * moment.confidence)}% sure`;

// Of a moment in an index: what orders the moments of different videos, where there is no confidence.
export const similarityText = moment =>
  moment.confidence === null && moment.similarity !== null ? `similarity ${moment.similarity.toFixed(3)}` : '';

export const sentence = text => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? '' : '.');

export const count = (number, noun) => `${number.toLocaleString('en')} ${noun}${number === 1 ? '' : 's'}`;

// An address of a moment: #video=ID&t=START-END&q=QUERY
export function address(video, moment, query) {
  const parts = [`video=${video}`];
  if (moment) parts.push(`t=${moment.start.toFixed(2)}-${moment.end.toFixed(2)}`);
  if (query) parts.push('q=' + encodeURIComponent(query));
  return '#' + parts.join('&');
}

export function parsed(hash) {
  const values = new URLSearchParams(hash.slice(1));
  const [, start, end] = /^(\d+(?:\.\d+)?)(?:-(\d+(?:\.\d+)?))?$/.exec(values.get('t') ?? '') ?? [];
  return {
    video: values.get('video') ?? '',
    query: values.get('q') ?? '',
    start: start === undefined ? null : Number(start),
    end: end === undefined ? null : Number(end),
  };
}

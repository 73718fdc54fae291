// Plays a video: its file where the browser can, else clips of it that the server makes around the position.

import {fileAddress, makePreview, previewAddress} from './api.js';

const STEP = 10, LENGTH = 20;  // seconds: a clip starts at a multiple of STEP, and at least STEP of it are ahead

export class Player {
  constructor(film, note, {onTime, onState}) {
    this.film = film;
    this.note = note;
    this.base = 0;       // where the loaded part starts in the video, in seconds
    this.until = null;   // where playing a moment ends
    this.wanted = null;  // the position to go to when the next part is loaded
    film.addEventListener('timeupdate', () => {
      if (this.until !== null && this.time >= this.until) {
        this.until = null;
        film.pause();
      }
      onTime(this.time);
    });
    film.addEventListener('loadedmetadata', () => {
      if (this.wanted !== null) film.currentTime = Math.max(this.wanted - this.base, 0);
      this.wanted = null;
    });
    film.addEventListener('canplay', () => this.say(''));
    film.addEventListener('playing', () => this.prepareNext());
    film.addEventListener('error', () => this.fail());
    film.addEventListener('ended', () => {
      if (!this.whole && this.loadedEnd < this.duration - 0.2) this.seek(this.loadedEnd, {until: this.until, play: true});
    });
    for (const name of ['play', 'pause', 'volumechange']) film.addEventListener(name, () => onState(film));
  }

  get time() {
    return this.wanted ?? this.base + this.film.currentTime;
  }

  // Open a video that is `duration` seconds long. `whole`: whether the browser plays its file.
  open(id, duration, whole) {
    this.close();
    this.id = id;
    this.duration = duration || Infinity;  // not all headers have it
    this.whole = whole;
    this.next = null;    // where the part starts that is made in advance
    if (whole) this.load(fileAddress(id), 0, 0);
  }

  close() {
    this.film.pause();
    this.film.removeAttribute('src');
    this.film.load();
    this.say('');
  }

  seek(time, {until = null, play = false} = {}) {
    this.until = until;
    time = Math.max(0, Math.min(time, this.duration - 0.1));
    if (!this.whole && !this.covers(time)) {
      const start = Math.floor(time / STEP) * STEP;
      this.loadedEnd = Math.min(start + LENGTH, this.duration);
      this.say('Preparing the video…');
      this.load(previewAddress(this.id, start, this.loadedEnd), start, time);
    } else if (this.film.readyState > 0) {
      this.film.currentTime = time - this.base;
    } else {
      this.wanted = time;
    }
    if (play) this.play();
  }

  // Let the server make the part after the loaded one while this one is played.
  prepareNext() {
    const start = this.loadedEnd;
    if (this.whole || !(start < this.duration - 0.2) || this.duration === Infinity || this.next === start) return;
    this.next = start;
    makePreview(this.id, start, Math.min(start + LENGTH, this.duration));
  }

  play() {
    if (!this.film.getAttribute('src')) this.seek(0);
    this.film.play().catch(() => {});  // another part is loaded, or the browser waits for a click
  }

  toggle() {
    this.until = null;
    if (this.film.paused) this.play();
    else this.film.pause();
  }

  // Try clips where the file cannot be played after all.
  fail() {
    if (!this.film.getAttribute('src')) return;
    if (!this.whole) return this.say('This video cannot be played.');
    const time = this.time;
    this.close();
    this.whole = false;
    this.seek(time, {until: this.until});
  }

  covers(time) {
    return this.film.getAttribute('src') !== null && time >= this.base && time < this.loadedEnd - 0.05;
  }

  load(source, base, time) {
    this.base = base;
    this.wanted = time;
    this.film.src = source;
  }

  say(text) {
    this.note.textContent = text;
    this.note.hidden = text === '';
  }
}

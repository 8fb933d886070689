// Which point is nearest: points from -1 to 1 in square cells, so that a look costs what stands near.

const PER_CELL = 6, FINEST = 256;

export class Grid {
  /** @param {Float32Array} places x, y of each point. */
  constructor(places) {
    const count = places.length / 2, side = Math.max(1, Math.min(FINEST, Math.ceil(Math.sqrt(count / PER_CELL))));
    Object.assign(this, { places, side, starts: new Uint32Array(side * side + 1), points: new Uint32Array(count) });
    const cells = new Uint32Array(count);
    for (let n = 0; n < count; n++) {
      cells[n] = this.#along(places[2 * n]) + side * this.#along(places[2 * n + 1]);
      this.starts[cells[n] + 1]++;
    }
    for (let cell = 0; cell < side * side; cell++) this.starts[cell + 1] += this.starts[cell];
    const next = this.starts.slice();
    for (let n = 0; n < count; n++) this.points[next[cells[n]]++] = n;
  }

  /** The point nearest to (x, y), none farther than `reach`; -1 if there is none. `allowed` says which ones count. */
  nearest(x, y, reach, allowed = () => true) {
    const [left, right] = [this.#along(x - reach), this.#along(x + reach)];
    const [low, high] = [this.#along(y - reach), this.#along(y + reach)];
    let best = -1, least = reach * reach;
    for (let row = low; row <= high; row++) {
      const end = this.starts[right + this.side * row + 1];
      for (let place = this.starts[left + this.side * row]; place < end; place++) {
        const point = this.points[place];
        const dx = this.places[2 * point] - x, dy = this.places[2 * point + 1] - y, apart = dx * dx + dy * dy;
        if (apart <= least && allowed(point)) [best, least] = [point, apart];
      }
    }
    return best;
  }

  #along(value) {
    return Math.max(0, Math.min(this.side - 1, Math.floor(((value + 1) / 2) * this.side)));
  }
}

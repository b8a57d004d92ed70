// Keeps a place in view although events, fonts or sheets arrive late and move it, until the user scrolls or acts.

/** element: what scrolls. reveal(): scrolls it to the place, if need be. hands: where the user acts on it. */
export class ScrollHold {
  constructor(element, reveal, hands, signal) {
    Object.assign(this, { element, reveal, isOver: false, last: null });
    for (const name of ["pointerdown", "keydown", "wheel"]) hands.addEventListener(name, () => this.end(), { signal, passive: true });
  }

  end() {
    this.isOver = true;
  }

  /** To be called when the content has changed or was scrolled. Another position among the same sizes is the user's. */
  update() {
    if (this.#isMoved()) this.end();
    if (this.isOver) return;
    if (this.element.clientWidth) this.reveal();
    this.last = this.element.clientWidth ? this.#measure() : null; // what is hidden may lose its position
  }

  #isMoved() {
    const [before, now] = [this.last, this.#measure()];
    return before !== null && before.sizes === now.sizes && before.position !== now.position;
  }

  #measure() {
    const { clientWidth, clientHeight, scrollWidth, scrollHeight, scrollLeft, scrollTop } = this.element;
    return { sizes: `${clientWidth} ${clientHeight} ${scrollWidth} ${scrollHeight}`, position: `${scrollLeft} ${scrollTop}` };
  }
}

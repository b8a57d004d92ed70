// The sizes of the matrix' parts, and the range of cells that is visible.

const ROW = 28;
const DENSE_COLUMN = 32;
const NAME_COLUMN = 80; // room for a name over several lines
const WORD_COLUMN = 112; // room for an icon and the longest word
const MOST_COLUMN = 220;
const LETTER = 7.5;
const SPARE = 4;
const BLOCK = 8; // columns are added and removed by so many, so that rows are rebuilt less often

export class Measures {
  constructor() {
    this.sizes = null;
  }

  /** Computes the sizes: columns with words if all fit, otherwise icons alone, the narrowest with upright names. longest: letters of the
   * longest name. */
  fit(width, columns, longest) {
    const first = width < 600 ? 110 : 200;
    const room = (width - first) / Math.max(1, columns);
    const isDense = room < WORD_COLUMN;
    const column = isDense ? Math.max(DENSE_COLUMN, Math.floor(Math.min(room, WORD_COLUMN))) : Math.floor(Math.min(room, MOST_COLUMN));
    const isUpright = column < NAME_COLUMN;
    this.sizes = { first, column, row: ROW, head: isUpright ? Math.min(170, 30 + longest * LETTER) : isDense ? 74 : 62, isDense, isUpright };
    return this.sizes;
  }

  x(column) {
    return this.sizes.first + column * this.sizes.column;
  }

  /** Returns the columns and rows to draw, `{left, right, top, bottom}`; right and bottom are excluded. */
  visibleRange(scrollLeft, scrollTop, width, height, columns, rows) {
    const { column, row } = this.sizes;
    return {
      left: Math.floor(scrollLeft / column / BLOCK) * BLOCK,
      right: Math.min(columns, Math.ceil((scrollLeft + width) / column / BLOCK) * BLOCK),
      top: Math.max(0, Math.floor(scrollTop / row) - SPARE),
      bottom: Math.min(rows, Math.ceil((scrollTop + height) / row) + SPARE),
    };
  }

  /** Scrolls until this cell is visible and not covered by the header. */
  reveal(element, { row, column }) {
    const { first, head, column: width, row: height } = this.sizes;
    const y = row * height;
    const x = column * width;
    const top = Math.min(Math.max(element.scrollTop, y + height - (element.clientHeight - head)), y);
    const left = Math.min(Math.max(element.scrollLeft, x + width - (element.clientWidth - first)), x);
    element.scrollTo(left, top);
  }
}

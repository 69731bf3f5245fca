// The front end of the explorer: the map, the frontier and the counts, drawn as SVG.
// Python sends `cells` once and `view` after each change; we send back which cell was
// clicked. Nothing is loaded, nothing is parsed as HTML: text goes in as text.

// Elements and numbers ------------------------------------------------------------------

const NS = 'http://www.w3.org/2000/svg'

// Set attributes, listen to events (`onclick`, …), append children; leave out what is null.
function fill(element, attrs, children) {
  for (const [name, value] of Object.entries(attrs)) {
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value)
    else if (value !== null && value !== false) element.setAttribute(name, value)
  }
  element.append(...children.filter(child => child !== null))
  return element
}

const html = (tag, attrs = {}, ...children) => fill(document.createElement(tag), attrs, children)
const svg = (tag, attrs = {}, ...children) => fill(document.createElementNS(NS, tag), attrs, children)
const swatch = colour => html('i', {style: `background:${colour}`})

// A number with three significant digits.
function num(value) {
  if (value === null) return 'not finite'
  if (value === 0) return '0'
  if (Math.abs(value) < 1e-3) return value.toExponential(1)
  return `${+value.toPrecision(3)}`
}

// A count in thousands, millions or billions.
function big(count) {
  for (const [size, unit] of [[1e9, 'G'], [1e6, 'M'], [1e3, 'k']]) {
    if (count >= size) return `${num(count / size)} ${unit}`
  }
  return `${count}`
}

const pick = (list, of) => [...new Set(list.map(of))]
const clamp = (value, low, high) => Math.max(low, Math.min(high, value))

// The map -------------------------------------------------------------------------------

// Where everything lies: kinds of layers × blocks, turned on a narrow screen.
function layout(cells, width) {
  const kinds = pick(cells, c => c.kind)
  const blocks = pick(cells, c => c.block)
  const label = Math.max(...cells.map(c => c.short.length)) * 6.4 + 10
  return width < 480 ? turned(kinds, blocks, label, width) : upright(kinds, blocks, label, width)
}

// Blocks from left to right.
function upright(kinds, blocks, label, width) {
  const left = label, top = 4
  const w = clamp((width - left - 2) / blocks.length, 3, 44)
  const h = clamp(w * 1.15, 16, 30)
  return {
    kinds, blocks, turned: false, left, top, w, h,
    at: c => [blocks.indexOf(c.block), kinds.indexOf(c.kind)],
    width: left + blocks.length * w + 2,
    height: top + kinds.length * h + 34,
  }
}

// Blocks downwards, so that a cell stays large enough for a finger.
function turned(kinds, blocks, label, width) {
  const left = 30, top = label * .72 + 6, right = label * .45, h = 15
  const w = clamp((width - left - right) / kinds.length, 3, 44)
  return {
    kinds, blocks, turned: true, left, top, w, h,
    at: c => [kinds.indexOf(c.kind), blocks.indexOf(c.block)],
    width: left + kinds.length * w + right,
    height: top + blocks.length * h + 4,
  }
}

// A name in the middle of the row or the column `i`.
function besideRow(L, i, gap, text) {
  const y = L.top + (i + .5) * L.h + 4
  return svg('text', {x: L.left - gap, y, 'text-anchor': 'end'}, text)
}

function aboveColumn(L, i, text) {
  const place = `translate(${L.left + (i + .5) * L.w},${L.top - 5}) rotate(-40)`
  return svg('text', {transform: place}, text)
}

function belowColumn(L, i, text) {
  const x = L.left + (i + .5) * L.w
  return svg('text', {x, y: L.height - 19, 'text-anchor': 'middle'}, text)
}

// Names of the kinds, and the number of every few blocks.
function axes(L, cells) {
  const name = kind => cells.find(c => c.kind === kind).short
  const step = L.turned ? 5 : Math.ceil(L.blocks.length / 12 / 5) * 5
  const kinds = L.kinds.map((k, i) => L.turned ? aboveColumn(L, i, name(k)) : besideRow(L, i, 6, name(k)))
  const blocks = L.blocks.map((b, i) => L.turned ? besideRow(L, i, 5, `${b}`) : belowColumn(L, i, `${b}`))
  const some = blocks.filter((_, i) => i % step === 0)
  if (L.turned) return [...kinds, ...some]
  const caption = svg('text', {x: L.left, y: L.height - 4, class: 'mpq-dim'},
    'block, from the embedding to the head')
  return [...kinds, ...some, caption]
}

// A cell's marks are drawn once; classes switch them on and off.
function makeCell(cell, i, L, act) {
  const at = L.at(cell)
  const x = L.left + at[0] * L.w, y = L.top + at[1] * L.h
  const inset = by => ({x: x + by, y: y + by, width: L.w - 2 * by, height: L.h - 2 * by, rx: 1})
  const corner = L.h * .4
  const node = svg('g',
    {
      class: 'mpq-cell', role: 'button', tabindex: -1, 'data-name': cell.name,
      onclick: () => act.click(i), onfocus: () => act.focus(i), onkeydown: e => act.key(e, i),
    },
    svg('rect', {class: 'fill', ...inset(.5)}),
    svg('path', {class: 'notch', d: `M${x + L.w - 1},${y + 1}v${corner}l${-corner},${-corner}z`}),
    svg('circle', {class: 'dot', cx: x + L.w / 2, cy: y + L.h / 2, r: Math.min(3.2, L.w / 3.2)}),
    svg('rect', {class: 'halo', ...inset(1.5)}),
    svg('rect', {class: 'frame', ...inset(1.5)}),
    svg('title'))
  node.at = at
  return node
}

// Colour, classes and label of a cell, as the view has them.
function showCell(node, cell, view, i, changed, heat) {
  const choice = view.choice[i], scheme = view.schemes[choice]
  const marks = {pinned: view.pins[i] !== null, changed, mixed: view.mixed[i]}
  const said = [`${cell.name}: ${scheme}`]
  if (marks.pinned) said.push('pinned')
  if (marks.changed) said.push('changed')
  if (marks.mixed) said.push('experts differ')
  node.firstChild.setAttribute('fill', heat ? view.heats[i] : view.colours[choice])
  for (const [mark, on] of Object.entries(marks)) node.classList.toggle(mark, on)
  node.dataset.scheme = scheme
  node.setAttribute('aria-pressed', marks.pinned)
  node.setAttribute('aria-label', said.join(', '))
  node.lastChild.textContent = said.join(', ')
}

function showCells(nodes, cells, view, heat) {
  const changed = new Set(view.changed)
  nodes.forEach((node, i) => showCell(node, cells[i], view, i, changed.has(i), heat))
}

// The cell in hand ----------------------------------------------------------------------

const HINT = 'Click a layer to pin it at its format, so that the solver works around it; ' +
  'click again to let go. Keys: arrows, Enter, 1 to 9, Delete.'

// What the cell is, what it would lose in each format, and a button to pin it there.
function detail(cells, view, i, send) {
  if (i === null) return [html('span', {class: 'mpq-dim'}, HINT)]
  const cell = cells[i], pin = view.pins[i]
  const experts = cell.n > 1 ? `, ${cell.n} experts` : ''
  const button = (text, scheme, title) => html('button',
    {
      type: 'button', class: 'mpq-chip', 'aria-pressed': pin === scheme, title,
      onclick: () => send(i, scheme),
    },
    scheme === null ? null : swatch(view.colours[scheme]), text)
  const formats = view.schemes.map((name, q) => view.on[q]
    ? button(`${name} ${num(cell.loss[q])}`, q, `pin ${cell.name} in ${name}`)
    : null)
  return [
    html('span', {}, html('b', {}, cell.name), `, ${big(cell.weights)} weights${experts}. `),
    html('span', {class: 'mpq-dim'},
      `${view.what} (${view.unit}) in each format; choose one to pin it: `),
    ...formats.filter(b => b),
    button('as solved', null, 'let the solver choose'),
  ]
}

// The frontier --------------------------------------------------------------------------

// Round numbers for a linear axis, about five.
function ticks(low, high) {
  const raw = (high - low) / 5 || 1
  const power = 10 ** Math.floor(Math.log10(raw))
  const step = power * [1, 2, 5, 10].find(m => m * power >= raw * .999)
  const first = Math.ceil(low / step - 1e-9) * step
  const all = Array.from({length: 12}, (_, i) => +(first + i * step).toPrecision(6))
  return all.filter(v => v <= high + 1e-9)
}

// 1, 2 and 5 of each decade for a logarithmic axis; the decades alone when there are many.
function decades(low, high) {
  const all = []
  for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++) {
    for (const m of [1, 2, 5]) all.push(+(m * 10 ** e).toPrecision(2))
  }
  const some = all.filter(v => v >= low * .999 && v <= high * 1.001)
  return some.length > 8 ? some.filter(v => `${v.toExponential()}`[0] === '1') : some
}

// A marker of the figures: square, triangle, diamond, ring or dot.
function mark(kind, x, y, colour, r, title) {
  const attrs = {class: 'mpq-mark', fill: colour}, said = svg('title', {}, title)
  if (kind === 's') return svg('rect', {...attrs, x: x - r, y: y - r, width: 2 * r, height: 2 * r}, said)
  if (kind === '^') {
    const d = `M${x},${y - r * 1.2}l${r * 1.2},${r * 2.1}h${-2.4 * r}z`
    return svg('path', {...attrs, d}, said)
  }
  if (kind === 'D') {
    const a = r * 1.3
    return svg('path', {...attrs, d: `M${x},${y - a}l${a},${a}l${-a},${a}l${-a},${-a}z`}, said)
  }
  const ring = kind === 'ring' ? {fill: 'none', stroke: colour, 'stroke-width': 1.8} : {}
  return svg('circle', {...attrs, cx: x, cy: y, r, ...ring}, said)
}

const PLOT = {height: 250, left: 58, right: 12, top: 10, bottom: 40}

// From sizes and losses to pixels; losses are logarithmic.
function scales(f, width) {
  const all = [...f.line, ...f.points.map(p => [p.x, p.y])]
  const xs = all.map(p => p[0]), ys = all.map(p => p[1]).filter(v => v > 0)
  const x0 = Math.min(...xs), x1 = Math.max(...xs), pad = (x1 - x0) * .03 || .5
  const low = Math.min(...ys) * .8, high = Math.max(...ys) * 1.25
  const across = width - PLOT.left - PLOT.right
  const down = PLOT.height - PLOT.top - PLOT.bottom
  return {
    empty: !ys.length, x0, x1, low, high,
    X: v => PLOT.left + (v - x0 + pad) / (x1 - x0 + 2 * pad) * across,
    Y: v => PLOT.top + Math.log(high / Math.max(v, low)) / Math.log(high / low) * down,
  }
}

// Lines of the grid with their numbers.
function gridLines(S, width) {
  const end = width - PLOT.right, floor = PLOT.height - PLOT.bottom
  const across = decades(S.low, S.high).flatMap(v => [
    svg('line', {class: 'mpq-grid', x1: PLOT.left, x2: end, y1: S.Y(v), y2: S.Y(v)}),
    svg('text', {x: PLOT.left - 6, y: S.Y(v) + 4, 'text-anchor': 'end'}, num(v))])
  const down = ticks(S.x0, S.x1).flatMap(v => [
    svg('line', {class: 'mpq-grid', x1: S.X(v), x2: S.X(v), y1: PLOT.top, y2: floor}),
    svg('text', {x: S.X(v), y: floor + 16, 'text-anchor': 'middle'}, num(v))])
  return [...across, ...down]
}

// Predicted loss against size: the line, and the recipes on it or above it.
function drawFrontier(f, what, width) {
  const attrs = {class: 'mpq-frontier', width, height: PLOT.height, role: 'img', 'aria-label': f.said}
  const S = scales(f, width)
  if (S.empty) return svg('svg', attrs)
  const middle = (PLOT.left + width - PLOT.right) / 2
  const centre = (PLOT.height - PLOT.bottom + PLOT.top) / 2
  const line = f.line.map(p => `${S.X(p[0])},${S.Y(p[1])}`).join(' ')
  const title = p => `${p.label}: ${num(p.x)}, ${num(p.y)}`
  return svg('svg', attrs,
    ...gridLines(S, width),
    svg('text', {x: middle, y: PLOT.height - 6, 'text-anchor': 'middle'}, f.xlabel),
    svg('text', {transform: `translate(11,${centre}) rotate(-90)`, 'text-anchor': 'middle'}, what),
    svg('polyline', {class: 'mpq-line', points: line}),
    ...f.points.map(p => mark(p.mark, S.X(p.x), S.Y(p.y), p.colour, p.r, title(p))))
}

// The key of the frontier's markers, each kind once.
function frontierKey(f) {
  const isFirst = (p, i) => f.points.findIndex(o => o.key === p.key) === i
  const entries = f.points.filter(isFirst).map(p => html('span', {},
    svg('svg', {width: 14, height: 14}, mark(p.mark, 7, 7, p.colour, 4.5, p.key)), p.key))
  return html('div', {class: 'mpq-key'}, ...entries, html('span', {class: 'mpq-dim'}, f.about))
}

// Counts and lines ----------------------------------------------------------------------

const delta = change => change ? html('small', {class: 'mpq-delta'}, change) : null

function facts(view) {
  return view.facts.map(([name, value, change]) =>
    html('div', {}, html('span', {class: 'mpq-dim'}, name), html('b', {}, value), delta(change)))
}

// Layers and share of each format, the marks of the map, and the switch to sensitivity.
function legend(view, heat, flip) {
  const chips = view.counts.map(([name, layers, share, change], q) =>
    html('span', {class: view.on[q] ? '' : 'mpq-off'},
      swatch(view.colours[q]), html('b', {}, name), ` ${layers} (${share})`, delta(change)))
  const heatSwitch = html('button',
    {type: 'button', class: 'mpq-chip', 'aria-pressed': heat, onclick: flip}, 'sensitivity')
  const about = heat ? [html('span', {class: 'mpq-dim'}, view.heat)] : []
  return [
    ...chips,
    html('span', {}, html('i', {class: 'mpq-dotted'}), view.since),
    html('span', {}, html('i', {class: 'mpq-framed'}), view.held),
    heatSwitch, ...about,
  ]
}

// A line to be copied.
function codeLine([name, text]) {
  const copied = () => { copy.textContent = 'copied' }
  const copy = html('button',
    {
      type: 'button', class: 'mpq-chip', 'aria-label': `copy the line for ${name}`,
      onclick: () => navigator.clipboard.writeText(text).then(copied),
    }, 'copy')
  return html('div', {class: 'mpq-code'},
    html('div', {}, html('span', {class: 'mpq-dim'}, name), copy),
    html('pre', {tabindex: 0, 'data-line': name}, text))
}

// All of it together --------------------------------------------------------------------

// The places that are filled after each message, and the element that holds them.
function frame() {
  const part = (name, tag = 'div') => html(tag, {class: 'mpq-' + name})
  const parts = {
    title: part('title', 'h3'), about: part('about'), error: part('error'),
    legend: part('legend'), map: part('map'), info: part('info'),
    right: part('right'), bottom: part('bottom'),
  }
  parts.error.setAttribute('role', 'alert')
  parts.info.setAttribute('aria-live', 'polite')
  const left = html('div', {class: 'mpq-left'}, parts.legend, parts.map, parts.info)
  const body = html('div', {class: 'mpq-body'}, left, parts.right)
  parts.root = html('div', {class: 'mpq'}, parts.title, parts.about, parts.error, body, parts.bottom)
  return parts
}

const ARROWS = {ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1]}

// Notebook 7 takes plain keys before the element that has the focus sees them. An element
// of ours that gets a key without a modifier says that it is not for the notebook.
function keepPlainKeys(e) {
  if (!e.target.closest?.('.mpq-explorer')) return
  const hasModifier = e.ctrlKey || e.metaKey || e.altKey || e.shiftKey
  e.target.toggleAttribute('data-lm-suppress-shortcuts', !hasModifier)
}

function render({model, el}) {
  const parts = frame()
  let L, nodes = []        // the layout, and a node for each cell
  let home = 0, at = null  // the cell that Tab reaches, and the one in hand
  let heat = false         // sensitivities instead of formats?
  el.append(parts.root)

  const send = (cell, scheme) => model.send({cell, scheme})
  const showDetail = () =>
    parts.info.replaceChildren(...detail(model.get('cells'), model.get('view'), at, send))

  const focus = i => {
    nodes[home]?.setAttribute('tabindex', -1)
    home = at = i
    nodes[i].setAttribute('tabindex', 0)
    if (document.activeElement !== nodes[i]) nodes[i].focus()
    showDetail()
  }

  // Pin a cell at the format that it has, or let it go.
  const click = i => {
    const view = model.get('view')
    focus(i)
    send(i, view.pins[i] === null ? view.choice[i] : null)
  }

  const move = (i, [right, down]) => {
    const [x, y] = nodes[i].at
    const next = nodes.findIndex(n => n.at[0] === x + right && n.at[1] === y + down)
    if (next >= 0) focus(next)
  }

  // What a key does to cell `i`; undefined for a key that is not ours.
  const action = (pressed, i) => {
    if (ARROWS[pressed]) return () => move(i, ARROWS[pressed])
    if (pressed === 'Enter' || pressed === ' ') return () => click(i)
    if (pressed === 'Delete' || pressed === 'Backspace') return () => send(i, null)
    const isFormat = /^[1-9]$/.test(pressed) && +pressed <= model.get('view').schemes.length
    if (isFormat) return () => send(i, +pressed - 1)
  }

  const key = (e, i) => {
    const act = action(e.key, i)
    if (!act) return
    act()
    e.preventDefault()
    e.stopPropagation()
  }

  // Build the map for a width; the focus stays where it was.
  const build = width => {
    const cells = model.get('cells'), held = nodes.includes(document.activeElement)
    L = layout(cells, width)
    L.for = width
    nodes = cells.map((cell, i) => makeCell(cell, i, L, {click, focus, key}))
    const label = 'Map of the layers: format by kind and block'
    parts.map.replaceChildren(svg('svg',
      {width: L.width, height: L.height, role: 'group', 'aria-label': label},
      ...axes(L, cells), ...nodes))
    nodes[home].setAttribute('tabindex', 0)
    if (held) nodes[home].focus()
  }

  const flip = () => {
    heat = !heat
    draw()
    parts.legend.querySelector('button').focus()
  }

  const drawRight = view => {
    const what = `${view.what} (${view.unit})`
    parts.right.replaceChildren(
      html('div', {class: 'mpq-facts'}, ...facts(view)),
      drawFrontier(view.frontier, what, parts.right.clientWidth || 320),
      frontierKey(view.frontier))
  }

  // Draw the detail anew; a button in it that had the focus has it afterwards.
  const redrawDetail = () => {
    const buttons = () => [...parts.info.querySelectorAll('button')]
    const focused = buttons().indexOf(document.activeElement)
    showDetail()
    if (focused >= 0) buttons()[focused]?.focus()
  }

  // All that happens after a message from Python.
  const draw = () => {
    const view = model.get('view')
    parts.error.textContent = view.error
    if (!view.schemes || !parts.map.clientWidth) return
    if (L?.for !== parts.map.clientWidth) build(parts.map.clientWidth)
    parts.root.classList.toggle('mpq-stale', !!view.error)
    parts.title.textContent = view.title
    parts.about.textContent = view.about
    showCells(nodes, model.get('cells'), view, heat)
    parts.legend.replaceChildren(...legend(view, heat, flip))
    drawRight(view)
    parts.bottom.replaceChildren(...view.code.map(codeLine),
      html('div', {class: 'mpq-note', role: 'status'}, view.note))
    redrawDetail()
    parts.root.dataset.ready = view.step
  }

  const watch = new ResizeObserver(draw)
  watch.observe(parts.map)
  model.on('change:view', draw)
  addEventListener('keydown', keepPlainKeys, true)
  draw()
  return () => {
    watch.disconnect()
    model.off('change:view', draw)
    removeEventListener('keydown', keepPlainKeys, true)
  }
}

export default {render}

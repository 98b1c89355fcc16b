/// Text that scrolls through the terminal, a line at each tick.
final class ScrollScene: Scene {
  private static let words = [
    "carrel", "desk", "reading", "window", "light", "library", "quiet", "shelf", "paper", "lamp",
    "index", "folio", "margin", "atlas", "ink", "page",
  ]

  override func start() { session.raise(session.terminal) }

  override func tick(_ count: Int) {
    var line = "\(count) ".text
    var state = Noise.hash(UInt32(truncatingIfNeeded: count))
    while line.count < 56 {
      line += Self.words[Int(state & 15)].text + [0x20]
      state = Noise.hash(state)
    }
    let inks: [Pixel] = [0xE9EAF0, 0x7CE2A8, 0x7FB2FF, 0xF5D76E]
    session.terminal.write(line, .rgb(inks[count % inks.count]))
    session.terminal.show(scrolledUp: 1)
  }
}

/// A tireless typist in the editor.
final class TypingScene: Scene {
  private static let sample = """
    The carrels stood along the north wall, one for each reader, and whoever came back
    found the book open at the same page and the lamp still warm.

    """.text

  override func start() {
    session.raise(session.editor)
    session.editor.clear()
  }

  override func tick(_ count: Int) {
    let length = Self.sample.count
    if count % (length * 4) == 0 { session.editor.clear() }
    let code = Self.sample[count % length]
    if code == 10 { session.editor.breakLine() } else { session.editor.insert(code) }
    session.editor.update()
  }
}

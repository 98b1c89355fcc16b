import Display

/// What `carreld` tells a display process: one packet of UTF-8 text each, a verb and
/// what it is about.
public enum DisplayCommand: Hashable, Sendable {
  /// `attach PATH`: show the desktop whose display link is there.
  case attach(path: String)
  /// `layout en-us|de|fr`: what keysyms mean from now on.
  case layout(KeyboardLayout)
  case detach
  /// `status PERCENT|- TEXT`: the screen while there is no desktop.
  case status(String, percent: Int?)
  case name(String)
  /// `end TEXT`: show it, then close.
  case end(String)

  /// `nil` for what is no command; a newer `carreld` may know more.
  public init?(packet: [UInt8]) {
    let (verb, rest) = Self.split(String(decoding: packet, as: UTF8.self))
    switch verb {
    case "attach": self = .attach(path: rest)
    case "layout":
      guard let layout = KeyboardLayout(rawValue: rest) else { return nil }
      self = .layout(layout)
    case "detach": self = .detach
    case "status":
      let (percent, text) = Self.split(rest)
      self = .status(text, percent: Int(percent))
    case "name": self = .name(rest)
    case "end": self = .end(rest)
    default: return nil
    }
  }

  /// The first word, and what follows the space after it.
  private static func split(_ text: String) -> (String, String) {
    guard let space = text.firstIndex(of: " ") else { return (text, "") }
    return (String(text[..<space]), String(text[text.index(after: space)...]))
  }
}

extension ViewerSession {
  /// Carries out what `carreld` says.
  public func perform(_ command: DisplayCommand) {
    switch command {
    case .attach(let path): attach(path: path)
    case .layout(let layout): setLayout(layout)
    case .detach: detach()
    case .status(let text, let percent): show(status: text, percent: percent)
    case .name(let name): rename(name)
    case .end(let text): end(text)
    }
  }
}

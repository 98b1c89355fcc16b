import Brokering

/// What the gateway tells a display process: one packet of UTF-8 text each.
enum DisplayMessage: Hashable, Sendable {
  case attach(displayLink: String)
  case layout(String)
  case detach
  case status(String, percent: Int?)
  case name(String)
  case end(String)

  /// The longest packet; longer texts are cut.
  static let limit = 4096

  var packet: [UInt8] {
    let text =
      switch self {
      case .attach(let path): "attach \(path)"
      case .layout(let layout): "layout \(layout)"
      case .detach: "detach"
      case .status(let text, let percent):
        "status \(percent.map { String(min(100, max(0, $0))) } ?? "-") \(text)"
      case .name(let name): "name \(name)"
      case .end(let text): "end \(text)"
      }
    return Array(text.onOneLine.utf8.prefix(Self.limit))
  }
}

/// What a display process tells the gateway.
enum DisplayReport: Hashable, Sendable {
  case attached
  /// The VMM behind the display link went away.
  case waiting
  case power(PowerRequest)
  case closed(reason: String)

  init?(packet: [UInt8]) {
    // What it says ends up in logs.
    let text = String(decoding: packet, as: UTF8.self).onOneLine
    let words = text.split(separator: " ", maxSplits: 1)
    let rest = words.count > 1 ? String(words[1]) : ""
    switch words.first {
    case "attached": self = .attached
    case "waiting": self = .waiting
    case "power":
      guard let request = PowerRequest(rawValue: rest) else { return nil }
      self = .power(request)
    case "closed": self = .closed(reason: rest)
    default: return nil
    }
  }
}

extension String {
  /// With spaces for everything that moves a terminal's cursor.
  fileprivate var onOneLine: String {
    var line = UnicodeScalarView()
    for scalar in unicodeScalars {
      switch scalar.properties.generalCategory {
      case .control, .lineSeparator, .paragraphSeparator: line.append(" ")
      default: line.append(scalar)
      }
    }
    return String(line)
  }
}

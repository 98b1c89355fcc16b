import ControlAPI
import Foundation

/// Rows in columns that are as wide as they need to be.
struct Table {
  struct Cell: ExpressibleByStringLiteral {
    let text: String
    let colour: Terminal.Colour?

    init(_ text: String, _ colour: Terminal.Colour? = nil) {
      self.text = text
      self.colour = colour
    }

    init(stringLiteral text: String) { self.init(text) }
  }

  let header: [String]
  private(set) var rows: [[Cell]] = []

  init(_ header: String...) { self.header = header }

  mutating func add(_ cells: Cell...) { rows.append(cells) }

  func render(_ terminal: Terminal, empty: String) -> String {
    guard !rows.isEmpty else { return empty }
    let widths = header.indices.map { column in
      max(header[column].count, rows.map { $0[column].text.count }.max() ?? 0)
    }
    func line(_ cells: [Cell], _ style: (String, Cell) -> String) -> String {
      cells.indices.map { column in
        let cell = cells[column]
        let last = column == cells.count - 1
        let padding = last ? 0 : widths[column] - cell.text.count
        return style(cell.text, cell) + String(repeating: " ", count: padding)
      }.joined(separator: "  ")
    }
    let head = line(header.map { Cell($0) }) { text, _ in terminal.bold(text) }
    return ([head] + rows.map { line($0) { terminal.paint($0, $1.colour) } })
      .joined(separator: "\n")
  }
}

/// `name: value` lines, values aligned.
func renderFields(_ fields: [(String, String?)]) -> String {
  let present = fields.compactMap { name, value in value.map { (name, $0) } }
  let width = present.map(\.0.count).max() ?? 0
  return present.map { name, value in
    name + ":" + String(repeating: " ", count: width - name.count + 1) + value
  }.joined(separator: "\n")
}

extension WireTime {
  /// How long ago, short: `12s`, `5m`, `3h`, `2d`.
  var age: String {
    let seconds = max(0, Int64(Date().timeIntervalSince1970) - milliseconds / 1000)
    return switch seconds {
    case ..<120: "\(seconds)s"
    case ..<7200: "\(seconds / 60)m"
    case ..<172_800: "\(seconds / 3600)h"
    default: "\(seconds / 86_400)d"
    }
  }
}

extension Optional<String> {
  var orDash: String { self ?? "-" }
}

func phaseColour(_ phase: String) -> Terminal.Colour? {
  switch phase {
  case "clean", "connected": .green
  case "failed": .red
  case "provisioning", "recycling", "dirty", "draining": .yellow
  default: nil
  }
}

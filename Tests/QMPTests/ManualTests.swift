import LinuxSystem
import QMP
import TestSupport
import Testing

@Suite("QMP in the manual")
struct ManualTests {
  /// What a row of the README's table of QMP names, by the row's first column.
  private func rows() throws -> [String: [String]] {
    let text = String(decoding: try Files.read("\(Programs.repository)/README.md"), as: UTF8.self)
    let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
    let first = try #require(lines.firstIndex(of: "| QMP | |"))
    var rows: [String: [String]] = [:]
    for line in lines[(first + 2)...].prefix(while: { $0.hasPrefix("|") }) {
      let cells = line.split(separator: "|").map { $0.split(separator: " ").joined(separator: " ") }
      // Every other part is between backquotes. What a command does besides has blanks.
      let quoted = cells[1].split(separator: "`", omittingEmptySubsequences: false).enumerated()
      rows[cells[0]] = quoted.filter { $0.offset % 2 == 1 && !$0.element.contains(" ") }
        .map { String($0.element) }
    }
    return rows
  }

  @Test("each command that there is stands in the README's table, once, and no other")
  func commands() throws {
    let machine = FakeQMPMachine()
    var session = QMPSession()
    _ = session.receive(#"{"execute":"qmp_capabilities"}"#.utf8, machine: machine)
    let answer = session.receive(#"{"execute":"query-commands"}"#.utf8, machine: machine)
    let names = try JSON(parsing: Array(answer.dropLast(2)))["return"]?.elements?.compactMap {
      $0["name"]?.text
    }
    let manual = try rows().filter { $0.key != "events" }.values.joined().sorted()
    #expect(manual == names?.sorted())
    #expect(manual.count > 30)
  }

  @Test("so does each event")
  func events() throws {
    #expect(try rows()["events"]?.sorted() == QMPEvent.Name.allCases.map(\.rawValue).sorted())
  }
}

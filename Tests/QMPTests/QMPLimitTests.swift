import LinuxSystem
import QMP
import TestSupport
import Testing

@Suite("QMP's limits of drives")
struct QMPLimitTests {
  private let machine = FakeQMPMachine()

  private func reply(_ command: String, _ arguments: String = "{}") throws -> JSON {
    var session = QMPSession()
    _ = session.receive(Array(#"{"execute":"qmp_capabilities"}"#.utf8), machine: machine)
    let text = "{\"execute\":\"\(command)\",\"arguments\":\(arguments)}"
    return try JSON(parsing: session.receive(Array(text.utf8), machine: machine))
  }

  /// The arguments that may not be left out, with some more.
  private func arguments(_ more: String = "", bps: Int = 0, iopsWrite: Int = 0) -> String {
    """
    {"id":"ide0-hd0","bps":\(bps),"bps_rd":0,"bps_wr":0,"iops":0,"iops_rd":0,
     "iops_wr":\(iopsWrite)\(more.isEmpty ? "" : ",")\(more)}
    """
  }

  private func medium() throws -> JSON {
    try #require(try reply("query-block")["return"]?.elements?.first?["inserted"])
  }

  @Test("are set, and shown as QEMU shows them")
  func sets() throws {
    let before = try medium()
    for name in ["bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"] {
      #expect(before[name] == 0)
    }
    #expect(before["bps_max"] == nil && before["iops_size"] == nil)
    let more = #""bps_max":9000,"bps_max_length":3,"iops_wr_max":70,"iops_size":4096"#
    #expect(
      try reply("block_set_io_throttle", arguments(more, bps: 1000, iopsWrite: 50))
        == ["return": [:]])
    #expect(machine.calls == ["limit ide0-hd0"])
    var limits = QMPLimits()
    limits.rates = [
      .bytes: .init(value: 1000, most: 9000, length: 3), .writes: .init(value: 50, most: 70),
    ]
    limits.operationSize = 4096
    #expect(machine.limits == limits)
    let after = try medium()
    #expect(after["bps"] == 1000 && after["bps_max"] == 9000 && after["bps_max_length"] == 3)
    #expect(after["iops_wr"] == 50 && after["iops_wr_max"] == 70)
    #expect(after["iops_wr_max_length"] == 1 && after["iops_size"] == 4096)
    #expect(after["bps_rd"] == 0 && after["iops"] == 0 && after["iops_max"] == nil)
    #expect(try reply("block_set_io_throttle", arguments()) == ["return": [:]])
    #expect(machine.limits == QMPLimits(), "what is left out is not kept")
  }

  @Test("are set under the older name of the parameter")
  func olderName() throws {
    let text = arguments(bps: 5).replacing("\"id\"", with: "\"device\"")
    #expect(try reply("block_set_io_throttle", text) == ["return": [:]])
    #expect(machine.limits.rates == [.bytes: .init(value: 5)])
  }

  @Test(
    "that cannot be are refused, and do not reach the machine",
    arguments: [
      ("{}", "Parameter 'id' is missing"),
      (#"{"id":"ide0-hd0","bps":0}"#, "Parameter 'bps_rd' is missing"),
      (#"{"id":"sd0","bps":0}"#, "Device 'sd0' not found"),
      ("\u{1}\"group\":\"a\"", "'group' cannot be given: each drive has its own limits"),
      ("\u{1}\"bps_max\":-1", "'bps_max' expects no negative number"),
      ("\u{1}\"bps_max\":\"9\"", "Invalid parameter type for 'bps_max', expected: integer"),
      ("\u{1}\"bps_min\":1", "'bps_min' is unexpected"),
      ("\u{2}", "'ide1-cd0' cannot be limited: only disks can"),
    ])
  func refused(text: String, reason: String) throws {
    let arguments =
      switch text.first {
      case "\u{1}": arguments(String(text.dropFirst()))
      case "\u{2}": arguments().replacing("ide0-hd0", with: "ide1-cd0")
      default: text
      }
    let answer = try reply("block_set_io_throttle", arguments)
    #expect(answer["error"]?["desc"]?.text?.contains(reason) == true, "\(answer)")
    #expect(machine.calls.isEmpty)
  }

  @Test("survive requests that are cut or damaged")
  func hostile() throws {
    let bytes = try Files.read("\(Programs.repository)/Tests/Fuzz/Corpus/qmp/limits")
    #expect(QMPFuzzing.run(bytes) == 2)
    for index in bytes.indices {
      #expect(QMPFuzzing.run(Array(bytes.prefix(index))) <= 2)
      for bit in 0..<8 {
        var damaged = bytes
        damaged[index] ^= 1 << UInt8(bit)
        QMPFuzzing.run(damaged)
      }
    }
  }
}

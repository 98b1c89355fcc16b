import Snapshot
import Testing

@Suite struct StateCodingTests {
  enum Mode: String, Codable { case stream, remote }
  enum Transfer: Codable, Equatable {
    case idle
    case reading(lba: UInt64, count: Int)
    case packet([UInt8])
  }
  struct Inner: Codable, Equatable {
    var queue: [UInt8]
    var deadline: UInt64?
    var next: [Int16]
  }
  struct Everything: Codable, Equatable {
    var version = 1
    var flag = true
    var i8 = Int8.min
    var i16 = Int16.min
    var i32 = Int32.min
    var i64 = Int64.min
    var u8 = UInt8.max
    var u16 = UInt16.max
    var u32 = UInt32.max
    var u64 = UInt64.max
    var minusOne = -1
    var double = -0.1
    var float: Float = .infinity
    var text = "Grüße"
    var bytes: [UInt8] = [0, 255, 7]
    var planes: [[UInt8]] = [[1], [], [2, 3]]
    var words: [UInt32] = [1, .max]
    var mode = Mode.remote
    var transfers: [Transfer] = [.idle, .reading(lba: 1 << 40, count: 3), .packet([9])]
    var optionals: [Int?] = [nil, 3]
    var absent: Int?
    var present: Int? = 4
    var table: [String: Int] = ["a": 1]
    var inner = Inner(queue: [0xE0, 0x1C], deadline: nil, next: [-300, 300])
  }

  func roundTrip<T: Codable>(_ value: T) throws -> T {
    try StateDecoder().decode(T.self, from: StateEncoder().encode(value))
  }

  @Test("every kind of field comes back as it was")
  func everything() throws {
    let value = Everything()
    #expect(try roundTrip(value) == value)
  }

  @Test("a bare value, an empty array and an empty structure come back")
  func small() throws {
    struct Empty: Codable, Equatable {}
    #expect(try roundTrip(42) == 42)
    #expect(try roundTrip("") == "")
    #expect(try roundTrip([UInt8]()) == [])
    #expect(try roundTrip([Int]()) == [])
    #expect(try roundTrip(Empty()) == Empty())
    #expect(try roundTrip(Int?.none) == nil)
  }

  @Test("bytes are stored as bytes, one for one")
  func compact() throws {
    let encoded = try StateEncoder().encode([UInt8](repeating: 0x5A, count: 65536))
    #expect(encoded.count == 65536 + 5 + 1 + 3)
  }

  @Test("equal states are equal bytes")
  func deterministic() throws {
    let table = Dictionary(uniqueKeysWithValues: (0..<50).map { ("key\($0)", $0) })
    let again = Dictionary(uniqueKeysWithValues: (0..<50).reversed().map { ("key\($0)", $0) })
    #expect(try StateEncoder().encode(table) == StateEncoder().encode(again))
  }

  @Test("a state without a field that was added later as an optional still opens")
  func addedField() throws {
    struct Old: Codable { var version = 1, level = 7 }
    struct New: Codable {
      var version: Int
      var level: Int
      var added: [UInt8]?
    }
    let opened = try StateDecoder().decode(New.self, from: StateEncoder().encode(Old()))
    #expect(opened.level == 7)
    #expect(opened.added == nil)
    let back = try StateDecoder().decode(
      Old.self, from: StateEncoder().encode(New(version: 1, level: 8, added: [1])))
    #expect(back.level == 8)
  }

  @Test("a missing field that is not optional is named in the error")
  func missingField() throws {
    struct Old: Codable { var version = 1 }
    struct New: Codable { var version: Int, wanted: Int }
    let bytes = try StateEncoder().encode(Old())
    let error = #expect(throws: StateError.self) {
      try StateDecoder().decode(New.self, from: bytes)
    }
    #expect(error?.kind == .mismatch)
    #expect(error.map { "\($0)".contains("wanted") } == true)
  }

  @Test("an integer that does not fit the field is refused, not cut")
  func tooLarge() throws {
    let bytes = try StateEncoder().encode(["level": 300])
    let error = #expect(throws: StateError.self) {
      try StateDecoder().decode([String: UInt8].self, from: bytes)
    }
    #expect(error?.kind == .mismatch)
    #expect(throws: StateError.self) {
      try StateDecoder().decode(UInt64.self, from: StateEncoder().encode(-1))
    }
  }

  @Test("every truncation is refused")
  func truncated() throws {
    let bytes = try StateEncoder().encode(Everything())
    for length in 0..<bytes.count {
      let error = #expect(throws: StateError.self) {
        try StateDecoder().decode(Everything.self, from: bytes.prefix(length))
      }
      #expect(error?.kind == .damaged)
    }
    #expect(throws: StateError.self) {
      try StateDecoder().decode(Everything.self, from: bytes + [0])
    }
  }

  @Test("every single altered byte is refused or opens as a value, and never crashes")
  func altered() throws {
    let bytes = try StateEncoder().encode(Everything())
    var refused = 0
    for index in bytes.indices {
      for change: UInt8 in [1, 0x80, 0xFF] {
        var copy = bytes
        copy[index] ^= change
        if (try? StateDecoder().decode(Everything.self, from: copy)) == nil { refused += 1 }
      }
    }
    #expect(refused > bytes.count)
  }

  @Test(
    "hostile lengths, nesting and numbers are refused",
    arguments: [
      [0x08, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01],
      [0x09, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F],
      [0x0A, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F],
      [0x03, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x02],
      [0x07, 0x02, 0xC3, 0x28],
      [0x0A, 0x02, 0x01, 0x61, 0x00, 0x01, 0x61, 0x00],
      [0x0B],
      [0x09, 0x01],
    ] as [[UInt8]])
  func hostile(body: [UInt8]) {
    let error = #expect(throws: StateError.self) {
      try StateDecoder().decode([Int].self, from: Array("CSTA".utf8) + [1] + body)
    }
    #expect(error.map { [.damaged, .mismatch].contains($0.kind) } == true)
  }

  @Test("nesting deeper than any device's is refused before the stack runs out")
  func deep() {
    let body = [[UInt8]](repeating: [0x09, 0x01], count: 100_000).joined() + [0x00]
    let error = #expect(throws: StateError.self) {
      try StateDecoder().decode([Int].self, from: Array("CSTA".utf8) + [1] + body)
    }
    #expect(error?.kind == .damaged)
  }

  @Test("a newer format is named as such")
  func newer() {
    let error = #expect(throws: StateError.self) {
      try StateDecoder().decode(Int.self, from: Array("CSTA".utf8) + [2, 0x03, 0x01])
    }
    #expect(error?.kind == .tooNew)
  }

  @Test("negative numbers outside Int64 are refused")
  func negativeRange() {
    let bytes = Array("CSTA".utf8) + [1, 0x04] + [UInt8](repeating: 0xFF, count: 9) + [0x01]
    #expect(throws: StateError.self) { try StateDecoder().decode(Int64.self, from: bytes) }
  }
}

@Suite struct StateArchiveTests {
  struct Serial: Codable, Equatable { var version = 1, divisor = 12 }

  @Test("each device finds its own section again")
  func sections() throws {
    var archive = StateArchive()
    try archive.store(Serial(), as: "serial0")
    try archive.store(Serial(divisor: 3), as: "serial1")
    let opened = try StateArchive(bytes: archive.bytes())
    #expect(opened.names == ["serial0", "serial1"])
    #expect(try opened.state(Serial.self, of: "serial1") == Serial(divisor: 3))
    #expect(try opened.state(Serial.self, of: "sound") == nil)
  }

  @Test("a section that does not fit names the device")
  func wrongSection() throws {
    var archive = StateArchive()
    try archive.store([1, 2, 3], as: "vga")
    let error = #expect(throws: StateError.self) { try archive.state(Serial.self, of: "vga") }
    #expect(error.map { "\($0)".contains("vga") } == true)
  }

  @Test("an archive cut anywhere is refused")
  func cut() throws {
    var archive = StateArchive()
    try archive.store(Serial(), as: "serial0")
    let bytes = try archive.bytes()
    for length in 0..<bytes.count {
      #expect(throws: StateError.self) { try StateArchive(bytes: bytes.prefix(length)) }
    }
  }
}

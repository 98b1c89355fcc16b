import Devices
import TestSupport
import Testing

@Suite("SMBIOS")
struct SMBIOSTests {
  static let uuid: [UInt8] = [
    0x12, 0x34, 0x56, 0x78, 0x9A, 0xBC, 0x4D, 0xEF, 0x81, 0x23, 0x45, 0x67, 0x89, 0xAB, 0xCD, 0xEF,
  ]

  struct Structure {
    var handle: Int
    var bytes: [UInt8]
    var strings: [String]
  }

  func tables(processors: Int = 4, memory: UInt64 = 4 << 30) -> SMBIOSTables {
    let low = min(memory, 0xC000_0000)
    return SMBIOSTables(
      .init(
        uuid: Self.uuid, processors: processors, memory: memory,
        ranges: [0..<low, 1 << 32..<(1 << 32) + memory - low]))
  }

  /// Reads the structures as an operating system does, by type.
  func structures(_ bytes: [UInt8]) throws -> [UInt8: [Structure]] {
    var found: [UInt8: [Structure]] = [:]
    var at = 0
    while at < bytes.count {
      let length = Int(bytes[at + 1])
      let formatted = Array(bytes[at..<at + length])
      at += length
      var strings: [String] = []
      while bytes[at] != 0 {
        let text = bytes[at...].prefix { $0 != 0 }
        strings.append(String(decoding: text, as: UTF8.self))
        at += text.count + 1
      }
      at += strings.isEmpty ? 2 : 1
      let handle = Int(formatted[2]) | Int(formatted[3]) << 8
      found[formatted[0], default: []].append(
        Structure(handle: handle, bytes: formatted, strings: strings))
    }
    return found
  }

  func integer(_ bytes: [UInt8], _ offset: Int, _ count: Int) -> UInt64 {
    bytes[offset..<offset + count].reversed().reduce(0) { $0 << 8 | UInt64($1) }
  }

  @Test("the entry point sums to zero twice and tells where the structures are")
  func anchor() throws {
    let (anchor, bytes) = tables().placed(structuresAt: 0xF0040)
    #expect(anchor.count == 31 && anchor.starts(with: Array("_SM_".utf8)))
    #expect(anchor.reduce(0, &+) == 0 && anchor[16...].reduce(0, &+) == 0)
    #expect(Array(anchor[16..<21]) == Array("_DMI_".utf8))
    #expect(integer(anchor, 24, 4) == 0xF0040 && integer(anchor, 22, 2) == UInt64(bytes.count))
    let all = try structures(bytes)
    #expect(integer(anchor, 28, 2) == UInt64(all.values.reduce(0) { $0 + $1.count }))
  }

  @Test("the structures are there, with lengths of version 2.8 and handles of their own")
  func types() throws {
    let all = try structures(tables().placed(structuresAt: 0).structures)
    let lengths = all.mapValues { Set($0.map { Int($0.bytes[1]) }) }
    #expect(
      lengths == [
        0: [24], 1: [27], 3: [22], 4: [42], 16: [23], 17: [40], 19: [31], 32: [11], 127: [4],
      ])
    let handles = all.values.flatMap { $0.map(\.handle) }
    #expect(Set(handles).count == handles.count)
    for structure in all.values.joined() {
      #expect(structure.strings.allSatisfy { !$0.isEmpty })
    }
  }

  @Test("the system's UUID has its first three fields little-endian")
  func uuid() throws {
    let system = try #require(
      try structures(tables().placed(structuresAt: 0).structures)[1]?.first)
    #expect(
      Array(system.bytes[8..<24]) == [
        0x78, 0x56, 0x34, 0x12, 0xBC, 0x9A, 0xEF, 0x4D, 0x81, 0x23, 0x45, 0x67, 0x89, 0xAB, 0xCD,
        0xEF,
      ])
  }

  @Test("one socket has all processors as cores", arguments: [1, 64])
  func processor(count: Int) throws {
    let all = try structures(tables(processors: count).placed(structuresAt: 0).structures)
    #expect(all[4]?.count == 1)
    #expect(all[4]?.first?.bytes[35..<38].map { Int($0) } == [count, count, count])
  }

  @Test(
    "modules add up to the RAM",
    arguments: [
      (1 << 20, [1]), (512 << 20, [512]), (4 << 30, [4096]), (16 << 30, [16384]),
      (40 << 30, [16384, 16384, 8192]), (1 << 40, Array(repeating: 16384, count: 64)),
    ] as [(UInt64, [UInt64])])
  func memory(total: UInt64, modules: [UInt64]) throws {
    let all = try structures(tables(memory: total).placed(structuresAt: 0).structures)
    #expect(all[17]?.map { integer($0.bytes, 12, 2) } == modules)
    let array = try #require(all[16]?.first)
    #expect(integer(array.bytes, 13, 2) == UInt64(modules.count))
    #expect(integer(array.bytes, 7, 4) == min(total >> 10, 0x8000_0000))
    let mapped = (all[19] ?? []).reduce(UInt64(0)) {
      $0 + integer($1.bytes, 8, 4) - integer($1.bytes, 4, 4) + 1
    }
    #expect(mapped == total >> 10)
  }

  @Test("RAM of uneven size is told in kibibytes where that fits, else rounded down")
  func unevenMemory() throws {
    let small = try structures(tables(memory: 0x18_0000).placed(structuresAt: 0).structures)
    #expect(small[17].map { integer($0[0].bytes, 12, 2) } == 0x8000 | 1536)
    let large = try structures(
      tables(memory: 64 << 20 | 4096).placed(structuresAt: 0).structures)
    #expect(large[17].map { integer($0[0].bytes, 12, 2) } == 64)
  }

  @Test("firmware finds both files")
  func files() {
    var contents = FirmwareContents()
    tables().install(into: &contents)
    let (anchor, bytes) = tables().placed(structuresAt: 0)
    #expect(contents.file("etc/smbios/smbios-anchor") == anchor)
    #expect(contents.file("etc/smbios/smbios-tables") == bytes)
  }

  @Test("dmidecode reads all of it", .needs("dmidecode"))
  func dmidecode() throws {
    // Its dump format: the entry point, then at 32 the structures.
    let (anchor, bytes) = tables().placed(structuresAt: 32)
    let directory = try TemporaryDirectory()
    try directory.write(anchor + [0] + bytes, to: "dump")
    let result = try directory.run("dmidecode --from-dump dump 2>&1")
    #expect(result.status == 0, "\(result.output)")
    for line in [
      "SMBIOS 2.8 present.", "UUID: 12345678-9abc-4def-8123-456789abcdef", "Core Count: 4",
      "Size: 4 GB", "Maximum Capacity: 4 GB", "Range Size: 3 GB", "Range Size: 1 GB",
      "Manufacturer: Carrel", "System is a virtual machine", "Status: No errors detected",
      "End Of Table",
    ] {
      #expect(result.output.contains(line), "no \"\(line)\" in \(result.output)")
    }
    for word in ["BAD", "OUT OF SPEC", "TRUNCATED", "broken", "Wrong"] {
      #expect(!result.output.contains(word), "\(result.output)")
    }
  }
}

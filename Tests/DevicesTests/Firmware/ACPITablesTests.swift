import Devices
import Glibc
import TestSupport
import Testing

@Suite("ACPI tables")
struct ACPITablesTests {
  static let tables = ACPITables(
    ACPITables.Configuration(
      processors: 2, pciMemory: 0x8000_0000...0xFEBF_FFFF, timerOnPin2: true))

  struct Table {
    var signature: String
    var bytes: [UInt8]
  }

  static func integer(_ bytes: [UInt8], _ offset: Int, _ count: Int = 4) -> Int {
    bytes[offset..<offset + count].reversed().reduce(0) { $0 << 8 | Int($1) }
  }

  /// Follows the pointers from the RSDP, as an operating system does.
  static func walk(_ tables: [UInt8], _ rsdp: [UInt8], base: Int) -> [Table] {
    func table(_ address: Int) -> Table {
      let offset = address - base
      let length = integer(tables, offset + 4)
      let bytes = Array(tables[offset..<offset + length])
      return Table(signature: String(decoding: bytes[0..<4], as: UTF8.self), bytes: bytes)
    }
    let root = table(integer(rsdp, 16))
    var found = [root]
    for offset in stride(from: 36, to: root.bytes.count, by: 4) {
      found.append(table(integer(root.bytes, offset)))
    }
    if let fadt = found.first(where: { $0.signature == "FACP" }) {
      found.append(table(integer(fadt.bytes, 40)))
      found.append(table(integer(fadt.bytes, 36)))
    }
    return found
  }

  /// What firmware does with the loader script.
  static func load(_ contents: FirmwareContents, at addresses: [String: Int]) -> [String: [UInt8]] {
    var files: [String: [UInt8]] = [:]
    let script = contents.file("etc/table-loader") ?? []
    for start in stride(from: 0, to: script.count, by: 128) {
      let entry = Array(script[start..<start + 128])
      func name(_ offset: Int) -> String {
        String(decoding: entry[offset..<offset + 56].prefix { $0 != 0 }, as: UTF8.self)
      }
      switch integer(entry, 0) {
      case 1: files[name(4)] = contents.file(name(4))
      case 2:
        let offset = integer(entry, 116)
        let size = Int(entry[120])
        guard var file = files[name(4)], let base = addresses[name(60)] else { continue }
        let value = UInt64(integer(file, offset, size) + base)
        file.replaceSubrange(offset..<offset + size, with: LittleEndian.bytes(value).prefix(size))
        files[name(4)] = file
      case 3:
        guard var file = files[name(4)] else { continue }
        let range = integer(entry, 64)..<integer(entry, 64) + integer(entry, 68)
        file[integer(entry, 60)] &-= file[range].reduce(0, &+)
        files[name(4)] = file
      default: Issue.record("unknown command")
      }
    }
    return files
  }

  @Test("placed tables are linked, sum to zero and lie where they must")
  func placed() {
    let (tables, rsdp) = Self.tables.placed(tablesAt: 0x7F0_0000)
    #expect(rsdp.count == 20 && rsdp.reduce(0, &+) == 0)
    let found = Self.walk(tables, rsdp, base: 0x7F0_0000)
    #expect(found.map(\.signature) == ["RSDT", "FACP", "APIC", "WAET", "DSDT", "FACS"])
    for table in found where table.signature != "FACS" {
      #expect(table.bytes.reduce(0, &+) == 0, "\(table.signature)")
    }
    let fadt = found[1].bytes
    #expect(Self.integer(fadt, 36) % 64 == 0)
    #expect(Self.integer(fadt, 40) == Self.integer(fadt, 140, 8))
    #expect(Self.integer(fadt, 56) == 0x600 && Self.integer(fadt, 64) == 0x604)
  }

  @Test("the loader's script makes the same tables")
  func script() {
    var contents = FirmwareContents()
    Self.tables.install(into: &contents)
    let files = Self.load(
      contents, at: ["etc/acpi/tables": 0x7F0_0000, "etc/acpi/rsdp": 0xF5000])
    let (tables, rsdp) = Self.tables.placed(tablesAt: 0x7F0_0000)
    #expect(files["etc/acpi/tables"] == tables)
    #expect(files["etc/acpi/rsdp"] == rsdp)
  }

  @Test(
    "iasl disassembles every table and compiles the DSDT again without complaint",
    .needs("iasl"))
  func disassembly() throws {
    let (tables, rsdp) = Self.tables.placed(tablesAt: 0)
    let directory = try TemporaryDirectory()
    for table in Self.walk(tables, rsdp, base: 0) where table.signature != "FACS" {
      try directory.write(table.bytes, to: "\(table.signature).dat")
    }
    let shell =
      "iasl -d *.dat 2>&1 && ! grep -iE 'error|warning|invalid' *.dsl && iasl -ve DSDT.dsl 2>&1"
    let result = try directory.run(shell)
    #expect(result.status == 0, "\(result.output)")
    #expect(result.output.contains("0 Errors"))
    #expect(!result.output.lowercased().contains("checksum"), "\(result.output)")
  }
}

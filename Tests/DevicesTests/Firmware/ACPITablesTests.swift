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

  enum RootPointer { case rsdt, xsdt }

  static func integer(_ bytes: [UInt8], _ offset: Int, _ count: Int = 4) -> Int {
    bytes[offset..<offset + count].reversed().reduce(0) { $0 << 8 | Int($1) }
  }

  /// Follows the pointers from the RSDP, as an operating system does.
  static func walk(
    _ tables: [UInt8], _ rsdp: [UInt8], base: Int, through pointer: RootPointer = .rsdt
  ) -> [Table] {
    func table(_ address: Int) -> Table {
      let offset = address - base
      let length = integer(tables, offset + 4)
      let bytes = Array(tables[offset..<offset + length])
      return Table(signature: String(decoding: bytes[0..<4], as: UTF8.self), bytes: bytes)
    }
    let width = pointer == .rsdt ? 4 : 8
    let root = table(integer(rsdp, pointer == .rsdt ? 16 : 24, width))
    var found = [root]
    for offset in stride(from: 36, to: root.bytes.count, by: width) {
      found.append(table(integer(root.bytes, offset, width)))
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
      case 4: continue
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

  @Test(
    "placed tables are linked, sum to zero and lie where they must",
    arguments: [(RootPointer.rsdt, "RSDT"), (.xsdt, "XSDT")])
  func placed(pointer: RootPointer, root: String) {
    let (tables, rsdp) = Self.tables.placed(tablesAt: 0x7F0_0000, generationAt: 0x7E0_0000)
    #expect(rsdp.count == 36 && rsdp[15] == 2)
    #expect(rsdp[..<20].reduce(0, &+) == 0 && rsdp.reduce(0, &+) == 0)
    let found = Self.walk(tables, rsdp, base: 0x7F0_0000, through: pointer)
    #expect(
      found.map(\.signature) == [root, "FACP", "APIC", "SSDT", "WAET", "DSDT", "FACS"])
    for table in found where table.signature != "FACS" {
      #expect(table.bytes.reduce(0, &+) == 0, "\(table.signature)")
    }
    let fadt = found[1].bytes
    #expect(Self.integer(fadt, 36) % 64 == 0)
    #expect(Self.integer(fadt, 40) == Self.integer(fadt, 140, 8))
    #expect(Self.integer(fadt, 56) == 0x600 && Self.integer(fadt, 64) == 0x604)
    #expect(Self.integer(fadt, 80) == 0x60C && fadt[92] == 4)
    // The generation identifier's page, in a 32-bit constant of the SSDT.
    #expect(Self.integer(found[3].bytes, 42) == 0x7E0_0000)
  }

  @Test("the loader's script makes the same tables, and tells where the identifier lies")
  func script() throws {
    var contents = FirmwareContents()
    Self.tables.install(into: &contents)
    contents.addFile(
      GenerationIdentifier.pageFile,
      [UInt8](repeating: 0, count: GenerationIdentifier.pageSize))
    let files = Self.load(
      contents,
      at: [
        "etc/acpi/tables": 0x7F0_0000, "etc/acpi/rsdp": 0xF5000,
        GenerationIdentifier.pageFile: 0x7E0_0000,
      ])
    let (tables, rsdp) = Self.tables.placed(tablesAt: 0x7F0_0000, generationAt: 0x7E0_0000)
    #expect(files["etc/acpi/tables"] == tables)
    #expect(files["etc/acpi/rsdp"] == rsdp)
    #expect(files[GenerationIdentifier.pageFile]?.count == 4096)
    let script = try #require(contents.file("etc/table-loader"))
    let writes = stride(from: 0, to: script.count, by: 128).filter { script[$0] == 4 }
    #expect(writes.count == 1)
    let entry = Array(script[try #require(writes.first)...].prefix(128))
    #expect(entry[4...].starts(with: GenerationIdentifier.addressFile.utf8))
    #expect(entry[60...].starts(with: GenerationIdentifier.pageFile.utf8))
    #expect(Array(entry[116..<125]) == [0, 0, 0, 0, 0, 0, 0, 0, 8])
  }

  @Test("the MADT has a local APIC for each processor", arguments: [1, 2, 64])
  func processors(count: Int) throws {
    let tables = ACPITables(
      .init(processors: count, pciMemory: 0x8000_0000...0xFEBF_FFFF, timerOnPin2: true))
    let (bytes, rsdp) = tables.placed(tablesAt: 0, generationAt: 0)
    let madt = try #require(
      Self.walk(bytes, rsdp, base: 0).first { $0.signature == "APIC" }?.bytes)
    var identifiers: [UInt8] = []
    var at = 44
    while at < madt.count {
      if madt[at] == 0 {
        identifiers.append(madt[at + 3])
        #expect(madt[at + 2] == madt[at + 3])
        #expect(Self.integer(madt, at + 4) == 1)
      }
      at += Int(madt[at + 1])
    }
    #expect(identifiers == (0..<count).map { UInt8($0) })
  }

  @Test(
    "iasl disassembles every table and compiles it again without complaint",
    .needs("iasl"), arguments: [1, 64])
  func disassembly(processors: Int) throws {
    let tables = ACPITables(
      .init(processors: processors, pciMemory: 0x8000_0000...0xFEBF_FFFF, timerOnPin2: true))
    let (bytes, rsdp) = tables.placed(tablesAt: 0, generationAt: 0x1000)
    let directory = try TemporaryDirectory()
    var names: [String] = []
    for table in Self.walk(bytes, rsdp, base: 0)
      + [Self.walk(bytes, rsdp, base: 0, through: .xsdt)[0]]
    {
      try directory.write(table.bytes, to: "\(table.signature).dat")
      names.append(table.signature)
    }
    #expect(names.count == 8)
    for name in names {
      let shell =
        "iasl -d \(name).dat 2>&1 && ! grep -iE 'error|warning|invalid' \(name).dsl"
        + " && iasl -p again \(name).dsl 2>&1"
      let result = try directory.run(shell)
      #expect(result.status == 0, "\(name): \(result.output)")
      #expect(!result.output.lowercased().contains("checksum"), "\(name): \(result.output)")
      guard name == "DSDT" || name == "SSDT" else { continue }
      #expect(
        result.output.contains("0 Errors, 0 Warnings, 0 Remarks"), "\(name): \(result.output)")
    }
  }

  @Test(
    "an interpreter of AML finds the generation identifier, the way to S5 and no other state",
    .needs("acpiexec"))
  func execution() throws {
    let (bytes, rsdp) = Self.tables.placed(tablesAt: 0, generationAt: 0x7E0_0000)
    let directory = try TemporaryDirectory()
    for table in Self.walk(bytes, rsdp, base: 0) where ["DSDT", "SSDT"].contains(table.signature) {
      try directory.write(table.bytes, to: "\(table.signature).dat")
    }
    func run(_ command: String) throws -> String {
      let result = try directory.run("acpiexec -b '\(command)' DSDT.dat SSDT.dat 2>&1")
      #expect(result.status == 0, "\(result.output)")
      #expect(!result.output.contains("AE_AML"), "\(result.output)")
      return result.output
    }
    let address = try run("evaluate \\_SB.VGEN.ADDR")
    #expect(address.contains("0000000007E00028"), "\(address)")
    #expect(try run("evaluate \\_S5").contains("[Package] Contains 4 Elements"))
    for state in 1...4 {
      #expect(try run("evaluate \\_S\(state)").contains("AE_NOT_FOUND"), "S\(state)")
    }
    let event = try run("evaluate \\_GPE._E05")
    #expect(event.contains("Received a Device Notify on [VGEN]"), "\(event)")
  }
}

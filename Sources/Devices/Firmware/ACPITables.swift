/// The machine's ACPI tables: RSDP, RSDT, XSDT, FADT, FACS, DSDT, MADT, WAET, and an
/// SSDT for the generation identifier.
///
/// Firmware places them itself, led by a script of the table loader
/// (`install(into:)`); a machine without firmware gets them ready made
/// (`placed(tablesAt:generationAt:)`).
package struct ACPITables: Sendable {
  package struct Configuration: Sendable {
    package var processors: Int
    /// Memory space that PCI base addresses may use.
    package var pciMemory: ClosedRange<UInt32>
    /// Base of the PM1 registers.
    package var powerManagementBase: UInt16
    /// Whether IRQ 0 was routed to IOAPIC pin 2 (KVM's default routing is pin 0).
    package var timerOnPin2: Bool
    package var hasSerialPort: Bool

    package init(
      processors: Int, pciMemory: ClosedRange<UInt32>,
      powerManagementBase: UInt16 = PowerManagement.defaultBase, timerOnPin2: Bool,
      hasSerialPort: Bool = true
    ) {
      self.processors = processors
      self.pciMemory = pciMemory
      self.powerManagementBase = powerManagementBase
      self.timerOnPin2 = timerOnPin2
      self.hasSerialPort = hasSerialPort
    }

    /// As many as the tables can tell of.
    var processorCount: Int { min(max(processors, 1), 255) }
  }

  static let tablesFile = "etc/acpi/tables"
  static let rsdpFile = "etc/acpi/rsdp"

  struct Pointer {
    /// What an address is added of.
    enum Target { case tables, generation }

    var offset: Int
    var size: Int
    var target = Target.tables
  }

  struct Checksum {
    var offset: Int
    var range: Range<Int>
  }

  /// All tables but the RSDP; pointers in it count from its start.
  private(set) var tables: [UInt8] = []
  private(set) var pointers: [Pointer] = []
  private(set) var checksums: [Checksum] = []
  private let configuration: Configuration
  private var rootOffset = 0
  private var extendedRootOffset = 0

  package init(_ configuration: Configuration) {
    self.configuration = configuration
    let facs = append(Self.facs, alignment: 64)
    // Integers of 32 bits, which every system has.
    let dsdt = appendTable("DSDT", revision: 1, ACPINamespace(configuration).contents)
    let fadt = appendFixedDescription(facs: facs, dsdt: dsdt)
    let madt = appendTable("APIC", revision: 3, interruptControllers)
    let ssdt = appendTable("SSDT", revision: 1, ACPINamespace.generationIdentifier)
    pointers.append(
      Pointer(
        offset: ssdt + 36 + ACPINamespace.generationAddressOffset, size: 4, target: .generation))
    // The PM timer reads reliably in one go.
    let waet = appendTable("WAET", revision: 1, LittleEndian.bytes(UInt32(2)))
    let entries = [fadt, madt, ssdt, waet]
    rootOffset = appendRoot("RSDT", entries) { LittleEndian.bytes(UInt32($0)) }
    extendedRootOffset = appendRoot("XSDT", entries) { LittleEndian.bytes(UInt64($0)) }
  }

  // MARK: Delivery

  /// Adds the tables and the script that places them.
  package func install(into contents: inout FirmwareContents) {
    var script = TableLoaderScript()
    script.place(Self.rsdpFile, alignment: 16, inFirmwareSegment: true)
    script.place(Self.tablesFile, alignment: 64, inFirmwareSegment: false)
    script.place(GenerationIdentifier.pageFile, alignment: 4096, inFirmwareSegment: false)
    for pointer in pointers {
      let target =
        pointer.target == .tables ? Self.tablesFile : GenerationIdentifier.pageFile
      script.addPointer(
        in: Self.tablesFile, to: target, offset: pointer.offset, size: pointer.size)
    }
    script.writePointer(
      in: GenerationIdentifier.addressFile, offset: 0, size: 8,
      to: GenerationIdentifier.pageFile, sourceOffset: 0)
    for checksum in checksums {
      script.addChecksum(in: Self.tablesFile, offset: checksum.offset, over: checksum.range)
    }
    script.addPointer(in: Self.rsdpFile, to: Self.tablesFile, offset: 16, size: 4)
    script.addPointer(in: Self.rsdpFile, to: Self.tablesFile, offset: 24, size: 8)
    script.addChecksum(in: Self.rsdpFile, offset: 8, over: 0..<20)
    script.addChecksum(in: Self.rsdpFile, offset: 32, over: 0..<36)
    contents.addFile(Self.tablesFile, tables)
    contents.addFile(
      Self.rsdpFile,
      Self.rsdp(root: UInt32(rootOffset), extendedRoot: UInt32(extendedRootOffset)))
    contents.addFile("etc/table-loader", script.bytes)
  }

  /// The tables as they lie at `address` (a multiple of 64), and the RSDP for them.
  ///
  /// - Parameter generation: where `GenerationIdentifier.page` lies.
  package func placed(
    tablesAt address: UInt32, generationAt generation: UInt32
  ) -> (tables: [UInt8], rsdp: [UInt8]) {
    var bytes = tables
    for pointer in pointers {
      let low = bytes[pointer.offset..<pointer.offset + 4].reversed().reduce(UInt32(0)) {
        $0 << 8 | UInt32($1)
      }
      bytes.replaceSubrange(
        pointer.offset..<pointer.offset + 4,
        with: LittleEndian.bytes(low &+ (pointer.target == .tables ? address : generation)))
    }
    for checksum in checksums {
      bytes[checksum.offset] = 0 &- bytes[checksum.range].reduce(0, &+)
    }
    var rsdp = Self.rsdp(
      root: address &+ UInt32(rootOffset), extendedRoot: address &+ UInt32(extendedRootOffset))
    rsdp[8] = 0 &- rsdp[..<20].reduce(0, &+)
    rsdp[32] = 0 &- rsdp.reduce(0, &+)
    return (bytes, rsdp)
  }

  // MARK: Assembly

  private mutating func append(_ bytes: [UInt8], alignment: Int) -> Int {
    while tables.count % alignment != 0 { tables.append(0) }
    defer { tables += bytes }
    return tables.count
  }

  /// Appends a table with the header of ACPI 6.5, 5.2.6.
  private mutating func appendTable(_ signature: String, revision: UInt8, _ body: [UInt8]) -> Int {
    let length = 36 + body.count
    let header =
      Array(signature.utf8.prefix(4)) + LittleEndian.bytes(UInt32(length)) + [revision, 0]
      + Array("CARREL".utf8) + Array("CARRELPC".utf8) + LittleEndian.bytes(UInt32(1))
      + Array("CRRL".utf8) + LittleEndian.bytes(UInt32(1))
    let offset = append(header + body, alignment: 16)
    checksums.append(Checksum(offset: offset + 9, range: offset..<offset + length))
    return offset
  }

  /// A root table, whose entries point at other tables.
  private mutating func appendRoot(
    _ signature: String, _ entries: [Int], _ bytes: (Int) -> [UInt8]
  ) -> Int {
    let body = entries.map(bytes)
    let offset = appendTable(signature, revision: 1, body.flatMap { $0 })
    var entry = offset + 36
    for bytes in body {
      pointers.append(Pointer(offset: entry, size: bytes.count))
      entry += bytes.count
    }
    return offset
  }

  /// RSDP, ACPI 6.5, 5.2.5.3, revision 2.
  private static func rsdp(root: UInt32, extendedRoot: UInt32) -> [UInt8] {
    Array("RSD PTR ".utf8) + [0] + Array("CARREL".utf8) + [2] + LittleEndian.bytes(root)
      + LittleEndian.bytes(UInt32(36)) + LittleEndian.bytes(UInt64(extendedRoot)) + [0, 0, 0, 0]
  }

  /// FACS, ACPI 6.5, 5.2.10, version 1: there is a 64-bit waking vector, never used.
  private static var facs: [UInt8] {
    Array("FACS".utf8) + LittleEndian.bytes(UInt32(64)) + Array(repeating: 0, count: 24) + [1]
      + Array(repeating: 0, count: 31)
  }

  /// FADT, ACPI 6.5, 5.2.9 (revision 3: with a reset register).
  private mutating func appendFixedDescription(facs: Int, dsdt: Int) -> Int {
    let base = configuration.powerManagementBase
    var body = [UInt8](repeating: 0, count: 244 - 36)
    func put<T: FixedWidthInteger>(_ value: T, at offset: Int) {
      let bytes = LittleEndian.bytes(value)
      body.replaceSubrange(offset - 36..<offset - 36 + bytes.count, with: bytes)
    }
    func putPort(_ port: UInt16, bits: UInt8, access: UInt8, at offset: Int) {
      put(UInt32(1) | UInt32(bits) << 8 | UInt32(access) << 24, at: offset)
      put(UInt64(port), at: offset + 4)
    }
    put(UInt32(facs), at: 36)
    put(UInt32(dsdt), at: 40)
    put(UInt16(9), at: 46)  // SCI_INT
    put(UInt32(0xB2), at: 48)  // SMI_CMD
    put(PowerManagement.acpiEnable, at: 52)
    put(PowerManagement.acpiDisable, at: 53)
    put(UInt32(base), at: 56)  // PM1a_EVT_BLK
    put(UInt32(base) + 4, at: 64)  // PM1a_CNT_BLK
    put(UInt32(base) + 8, at: 76)  // PM_TMR_BLK
    put(UInt32(base) + 12, at: 80)  // GPE0_BLK
    put(UInt32(0x0400_0204), at: 88)  // lengths of EVT, CNT, PM2, TMR
    put(UInt8(4), at: 92)  // length of GPE0
    put(UInt16(0xFFF), at: 96)  // no C2
    put(UInt16(0xFFF), at: 98)  // no C3
    put(UInt8(0x32), at: 108)  // CENTURY
    put(UInt16(0x0003), at: 109)  // legacy devices, 8042
    // WBINVD, PROC_C1, RTC cannot wake, RESET_REG; both buttons are fixed hardware, the
    // timer has 24 bits.
    put(UInt32(1 << 0 | 1 << 2 | 1 << 6 | 1 << 10), at: 112)
    putPort(0xCF9, bits: 8, access: 1, at: 116)
    put(UInt8(0x06), at: 128)
    put(UInt64(dsdt), at: 140)  // X_DSDT
    putPort(base, bits: 32, access: 2, at: 148)
    putPort(base + 4, bits: 16, access: 2, at: 172)
    putPort(base + 8, bits: 32, access: 3, at: 208)
    putPort(base + 12, bits: 32, access: 1, at: 220)
    let offset = appendTable("FACP", revision: 3, body)
    pointers.append(Pointer(offset: offset + 36, size: 4))
    pointers.append(Pointer(offset: offset + 40, size: 4))
    pointers.append(Pointer(offset: offset + 140, size: 8))
    return offset
  }

  /// MADT, ACPI 6.5, 5.2.12.
  private var interruptControllers: [UInt8] {
    var body = LittleEndian.bytes(UInt32(0xFEE0_0000)) + LittleEndian.bytes(UInt32(1))
    for index in 0..<configuration.processorCount {
      body += [0, 8, UInt8(index), UInt8(index)] + LittleEndian.bytes(UInt32(1))
    }
    body += [1, 12, 0, 0] + LittleEndian.bytes(UInt32(0xFEC0_0000))
    body += LittleEndian.bytes(UInt32(0))
    func override(_ source: UInt8, pin: UInt32, flags: UInt16) -> [UInt8] {
      [2, 10, 0, source] + LittleEndian.bytes(pin) + LittleEndian.bytes(flags)
    }
    if configuration.timerOnPin2 { body += override(0, pin: 2, flags: 0) }
    // SCI and PIRQs: active high, level.
    for line in [UInt8(5), 9, 10, 11] { body += override(line, pin: UInt32(line), flags: 0x0D) }
    body += [4, 6, 0xFF, 0, 0, 1]  // NMI on LINT1 of every CPU
    return body
  }
}

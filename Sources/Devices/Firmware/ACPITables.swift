/// The machine's ACPI tables: RSDP, RSDT, FADT, FACS, DSDT, MADT and WAET.
///
/// Firmware places them itself, led by a script of the table loader
/// (`install(into:)`); a machine without firmware gets them ready made
/// (`placed(tablesAt:)`).
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
  }

  static let tablesFile = "etc/acpi/tables"
  static let rsdpFile = "etc/acpi/rsdp"

  struct Pointer {
    var offset: Int
    var size: Int
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

  package init(_ configuration: Configuration) {
    self.configuration = configuration
    let facs = append(Self.facs, alignment: 64)
    let dsdt = appendTable("DSDT", revision: 1, differentiatedDescription)
    let fadt = appendFixedDescription(facs: facs, dsdt: dsdt)
    let madt = appendTable("APIC", revision: 1, interruptControllers)
    // The PM timer reads reliably in one go.
    let waet = appendTable("WAET", revision: 1, LittleEndian.bytes(UInt32(2)))
    let entries = [fadt, madt, waet]
    rootOffset = appendTable(
      "RSDT", revision: 1, entries.flatMap { LittleEndian.bytes(UInt32($0)) })
    for index in entries.indices {
      pointers.append(Pointer(offset: rootOffset + 36 + index * 4, size: 4))
    }
  }

  // MARK: Delivery

  /// Adds the tables and the script that places them.
  package func install(into contents: inout FirmwareContents) {
    var script = TableLoaderScript()
    script.place(Self.rsdpFile, alignment: 16, inFirmwareSegment: true)
    script.place(Self.tablesFile, alignment: 64, inFirmwareSegment: false)
    for pointer in pointers {
      script.addPointer(
        in: Self.tablesFile, to: Self.tablesFile, offset: pointer.offset, size: pointer.size)
    }
    for checksum in checksums {
      script.addChecksum(in: Self.tablesFile, offset: checksum.offset, over: checksum.range)
    }
    script.addPointer(in: Self.rsdpFile, to: Self.tablesFile, offset: 16, size: 4)
    script.addChecksum(in: Self.rsdpFile, offset: 8, over: 0..<20)
    contents.addFile(Self.tablesFile, tables)
    contents.addFile(Self.rsdpFile, Self.rsdp(root: UInt32(rootOffset)))
    contents.addFile("etc/table-loader", script.bytes)
  }

  /// The tables as they lie at `address` (a multiple of 64), and the RSDP for them.
  package func placed(tablesAt address: UInt32) -> (tables: [UInt8], rsdp: [UInt8]) {
    var bytes = tables
    for pointer in pointers {
      let low = bytes[pointer.offset..<pointer.offset + 4].reversed().reduce(UInt32(0)) {
        $0 << 8 | UInt32($1)
      }
      bytes.replaceSubrange(
        pointer.offset..<pointer.offset + 4, with: LittleEndian.bytes(low &+ address))
    }
    for checksum in checksums {
      bytes[checksum.offset] = 0 &- bytes[checksum.range].reduce(0, &+)
    }
    var rsdp = Self.rsdp(root: address &+ UInt32(rootOffset))
    rsdp[8] = 0 &- rsdp.reduce(0, &+)
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

  private static func rsdp(root: UInt32) -> [UInt8] {
    Array("RSD PTR ".utf8) + [0] + Array("CARREL".utf8) + [0] + LittleEndian.bytes(root)
  }

  private static var facs: [UInt8] {
    Array("FACS".utf8) + LittleEndian.bytes(UInt32(64)) + Array(repeating: 0, count: 56)
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
    put(UInt32(0x0400_0204), at: 88)  // lengths of EVT, CNT, PM2, TMR
    put(UInt16(0xFFF), at: 96)  // no C2
    put(UInt16(0xFFF), at: 98)  // no C3
    put(UInt8(0x32), at: 108)  // CENTURY
    put(UInt16(0x0003), at: 109)  // legacy devices, 8042
    // WBINVD, PROC_C1, no fixed sleep button, RTC cannot wake, RESET_REG.
    put(UInt32(1 << 0 | 1 << 2 | 1 << 5 | 1 << 6 | 1 << 10), at: 112)
    putPort(0xCF9, bits: 8, access: 1, at: 116)
    put(UInt8(0x06), at: 128)
    put(UInt64(dsdt), at: 140)  // X_DSDT
    putPort(base, bits: 32, access: 2, at: 148)
    putPort(base + 4, bits: 16, access: 2, at: 172)
    putPort(base + 8, bits: 32, access: 3, at: 208)
    let offset = appendTable("FACP", revision: 3, body)
    pointers.append(Pointer(offset: offset + 36, size: 4))
    pointers.append(Pointer(offset: offset + 40, size: 4))
    pointers.append(Pointer(offset: offset + 140, size: 8))
    return offset
  }

  /// MADT, ACPI 6.5, 5.2.12.
  private var interruptControllers: [UInt8] {
    var body = LittleEndian.bytes(UInt32(0xFEE0_0000)) + LittleEndian.bytes(UInt32(1))
    for index in 0..<min(max(configuration.processors, 1), 255) {
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

  private var differentiatedDescription: [UInt8] {
    let bridge = AML.device(
      "PCI0",
      [
        AML.name("_HID", AML.eisaID("PNP0A03")),
        AML.name("_ADR", AML.integer(0)),
        AML.name("_UID", AML.integer(0)),
        AML.name("_CRS", bridgeResources),
        AML.name("_PRT", interruptRouting),
        AML.device("ISA", [AML.name("_ADR", AML.integer(0x0001_0000))] + isaDevices),
      ])
    let softOff = AML.integer(UInt32(PowerManagement.softOff))
    return AML.scope("\\_SB", [bridge])
      + AML.name("\\_S5", AML.package([softOff, softOff, AML.integer(0), AML.integer(0)]))
  }

  private var bridgeResources: [UInt8] {
    ACPIResource.template([
      ACPIResource.busNumbers(0...0xFF),
      ACPIResource.io(0xCF8, count: 8),
      ACPIResource.ioWindow(0...0xCF7),
      ACPIResource.ioWindow(0xD00...0xFFFF),
      ACPIResource.memoryWindow(0xA_0000...0xB_FFFF),
      ACPIResource.memoryWindow(configuration.pciMemory),
    ])
  }

  /// Every pin of every slot, on the interrupt that its PIRQ is routed to.
  private var interruptRouting: [UInt8] {
    AML.package(
      (1..<32).flatMap { device in
        (0..<4).map { pin in
          let request = ISABridge.interruptRequest(device: device, pin: pin)
          return AML.package([
            AML.integer(UInt32(device) << 16 | 0xFFFF), AML.integer(UInt32(pin)),
            AML.integer(0), AML.integer(UInt32(ISABridge.conventionalRoutes[request])),
          ])
        }
      })
  }

  private var isaDevices: [[UInt8]] {
    func device(_ name: String, _ id: String, _ resources: [[UInt8]]) -> [UInt8] {
      AML.device(
        name,
        [
          AML.name("_HID", AML.eisaID(id)),
          AML.name("_CRS", ACPIResource.template(resources)),
        ])
    }
    var devices = [
      device("RTC", "PNP0B00", [ACPIResource.io(0x70, count: 2), ACPIResource.interrupt(8)]),
      device(
        "KBD", "PNP0303",
        [
          ACPIResource.io(0x60, count: 1), ACPIResource.io(0x64, count: 1),
          ACPIResource.interrupt(1),
        ]),
      device("MOU", "PNP0F13", [ACPIResource.interrupt(12)]),
    ]
    if configuration.hasSerialPort {
      devices.append(
        device("COM1", "PNP0501", [ACPIResource.io(0x3F8, count: 8), ACPIResource.interrupt(4)]))
    }
    return devices
  }
}

import Devices
import KVM

/// Puts a kernel, its initial RAM disk and command line into RAM, as often as the machine is
/// reset, and enters it without firmware.
struct KernelLoader {
  private let files: KernelFiles
  private let start: KernelStart

  /// Where things lie below 640 KiB. The kernel's own segments come first:
  /// nothing of this may overlap them.
  enum Place {
    static let descriptorTable: UInt64 = 0x500
    static let startInfo: UInt64 = 0x6000
    static let bootParameters: UInt64 = 0x7000
    static let pageTables: UInt64 = 0x9000
    static let commandLine: UInt64 = 0x2_0000
    static let rsdp: UInt64 = 0xE_0000
    static let acpiTables: UInt64 = 0xE_0040
    /// A page, and the end of what ACPI tables may take.
    static let generation: UInt64 = 0xE_F000
    /// In the segment that is searched for the anchor.
    static let smbiosAnchor: UInt64 = 0xF_0000
    static let smbiosTables: UInt64 = 0xF_0020
  }

  init(_ files: KernelFiles, start: KernelStart) {
    self.files = files
    self.start = start
  }

  /// Puts everything into RAM and the first vCPU at the kernel's entry.
  func load(
    into memory: MachineMemory, cpu: VirtualCPU, tables: ACPITables, smbios: SMBIOSTables,
    generation: GenerationIdentifier
  ) throws {
    try place(into: memory, tables: tables, smbios: smbios, generation: generation.page)
    generation.place(at: Place.generation)
    switch start {
    case .pvh(let entry):
      try BootState.enterPVH(cpu, entry: entry, startInfo: Place.startInfo)
    case .linux64(let entry):
      try BootState.enterLinux64(
        cpu, entry: entry, bootParameters: Place.bootParameters,
        pageTables: Place.pageTables, descriptorTable: Place.descriptorTable)
    case .linux32(let entry):
      try BootState.enterLinux32(
        cpu, entry: entry, bootParameters: Place.bootParameters,
        descriptorTable: Place.descriptorTable)
    }
  }

  /// Puts everything into RAM.
  ///
  /// - Returns: where the initial RAM disk is.
  @discardableResult
  func place(
    into memory: some BootMemory, tables: ACPITables, smbios: SMBIOSTables, generation: [UInt8]
  ) throws -> Range<UInt64> {
    let (acpi, rsdp) = tables.placed(
      tablesAt: UInt32(Place.acpiTables), generationAt: UInt32(Place.generation))
    let (anchor, structures) = smbios.placed(structuresAt: UInt32(Place.smbiosTables))
    try keepClear(acpi: acpi.count, structures: structures.count, memory.layout)
    let end = try files.image.load(into: memory)
    let disk = try files.ramDiskPlace(above: end, below: memory.layout.low, memory.layout)
    if let target = memory.bytes(at: disk.lowerBound, count: disk.count), !disk.isEmpty {
      try files.ramDisk.read(into: target)
    }
    try memory.write(rsdp, at: Place.rsdp)
    try memory.write(acpi, at: Place.acpiTables)
    try memory.write(generation, at: Place.generation)
    try memory.write(anchor, at: Place.smbiosAnchor)
    try memory.write(structures, at: Place.smbiosTables)
    try memory.write(Array(files.commandLine.utf8) + [0], at: Place.commandLine)
    switch start {
    case .pvh: try memory.write(startInfo(disk, memory.layout), at: Place.startInfo)
    case .linux64:
      try memory.write(bootParameters(disk, memory.layout), at: Place.bootParameters)
      try BootState.writeLongModeTables(
        memory, pageTables: Place.pageTables, descriptorTable: Place.descriptorTable)
    case .linux32:
      try memory.write(bootParameters(disk, memory.layout), at: Place.bootParameters)
      try BootState.writeDescriptorTable(memory, at: Place.descriptorTable, isLong: false)
    }
    return disk
  }

  /// Refuses a kernel that would be overwritten by what is put beside it.
  private func keepClear(
    acpi: Int, structures: Int, _ layout: MemoryLayoutMap
  ) throws(MachineError) {
    var taken: [(what: String, start: UInt64, size: Int)] = [
      ("the ACPI root pointer", Place.rsdp, Int(Place.acpiTables - Place.rsdp)),
      ("the ACPI tables", Place.acpiTables, acpi),
      ("the generation identifier", Place.generation, GenerationIdentifier.pageSize),
      (
        "the SMBIOS tables", Place.smbiosAnchor,
        Int(Place.smbiosTables - Place.smbiosAnchor) + structures
      ),
      ("its command line", Place.commandLine, files.commandLine.utf8.count + 1),
    ]
    if case .pvh = start {
      taken.append(("its start information", Place.startInfo, startInfo(0..<0, layout).count))
    } else {
      taken += [
        ("its boot parameters", Place.bootParameters, 4096),
        ("its page tables", Place.pageTables, BootState.pageTablesSize),
        ("its descriptor table", Place.descriptorTable, BootState.descriptorTableSize),
      ]
    }
    for (address, memorySize) in files.image.occupied where memorySize > 0 {
      // Segments that leave RAM, or wrap around, are refused where they are loaded.
      let last = address.addingReportingOverflow(memorySize - 1).partialValue
      for (what, start, size) in taken
      where address < start + UInt64(size) && last >= start {
        throw MachineError(
          .image,
          "\(files.image.path) has a segment at \(hexadecimal(address)) to \(hexadecimal(last)),"
            + " where the machine puts \(what), at \(hexadecimal(start)) to"
            + " \(hexadecimal(start + UInt64(size) - 1))",
          remedy: "link the kernel elsewhere, such as at 1 MiB")
      }
    }
  }

  static func memoryMap(_ layout: MemoryLayoutMap) -> [MemoryRange] {
    var map = [
      MemoryRange(base: 0, size: 0x9_FC00, kind: .ram),
      MemoryRange(base: 0x9_FC00, size: 0x400, kind: .reserved),
      MemoryRange(base: Place.rsdp, size: PhysicalMap.shadowEnd - Place.rsdp, kind: .reserved),
    ]
    if layout.low > PhysicalMap.shadowEnd {
      map.append(
        MemoryRange(
          base: PhysicalMap.shadowEnd, size: layout.low - PhysicalMap.shadowEnd, kind: .ram))
    }
    map.append(
      MemoryRange(
        base: PhysicalMap.pciEnd, size: PhysicalMap.fourGiB - PhysicalMap.pciEnd, kind: .reserved))
    if layout.high > 0 {
      map.append(MemoryRange(base: PhysicalMap.fourGiB, size: layout.high, kind: .ram))
    }
    return map
  }

  /// struct hvm_start_info, version 1, followed by modules and memory map
  /// (Xen, public/arch-x86/hvm/start_info.h).
  private func startInfo(_ disk: Range<UInt64>, _ layout: MemoryLayoutMap) -> [UInt8] {
    let map = Self.memoryMap(layout)
    let modules = disk.isEmpty ? 0 : 1
    let moduleList = Place.startInfo + 56
    let memoryMap = moduleList + 32
    var bytes = LittleEndianBytes()
    bytes.append(UInt32(0x336E_C578))
    bytes.append(UInt32(1))
    bytes.append(UInt32(0))
    bytes.append(UInt32(modules))
    bytes.append(modules == 0 ? UInt64(0) : moduleList)
    bytes.append(Place.commandLine)
    bytes.append(Place.rsdp)
    bytes.append(memoryMap)
    bytes.append(UInt32(map.count))
    bytes.append(UInt32(0))
    for value in [disk.lowerBound, UInt64(disk.count), 0, 0] { bytes.append(value) }
    for range in map {
      bytes.append(range.base)
      bytes.append(range.size)
      bytes.append(range.kind.rawValue)
      bytes.append(UInt32(0))
    }
    return bytes.bytes
  }

  /// The "zero page" (Linux, Documentation/arch/x86/zero-page.rst and boot.rst).
  private func bootParameters(_ disk: Range<UInt64>, _ layout: MemoryLayoutMap) -> [UInt8] {
    var page = files.image.bootParameters
    func put(_ value: some FixedWidthInteger, at offset: Int) {
      for index in 0..<value.bitWidth / 8 {
        page[offset + index] = UInt8(truncatingIfNeeded: value >> (index * 8))
      }
    }
    put(Place.rsdp, at: 0x070)  // acpi_rsdp_addr
    put(UInt8(0xFF), at: 0x210)  // type_of_loader: undefined
    put(UInt32(truncatingIfNeeded: disk.lowerBound), at: 0x218)
    put(UInt32(truncatingIfNeeded: disk.count), at: 0x21C)
    put(UInt32(Place.commandLine), at: 0x228)
    let map = Self.memoryMap(layout)
    put(UInt8(map.count), at: 0x1E8)
    for (index, range) in map.enumerated() {
      let at = 0x2D0 + index * 20
      put(range.base, at: at)
      put(range.size, at: at + 8)
      put(range.kind.rawValue, at: at + 16)
    }
    return page
  }
}

/// Builds structures of little-endian fields.
struct LittleEndianBytes {
  private(set) var bytes: [UInt8] = []

  mutating func append(_ value: some FixedWidthInteger) {
    for index in 0..<value.bitWidth / 8 {
      bytes.append(UInt8(truncatingIfNeeded: value >> (index * 8)))
    }
  }
}

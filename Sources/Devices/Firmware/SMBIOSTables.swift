/// The machine's SMBIOS structures (DMTF DSP0134 2.8): who made it, its UUID, its
/// processor and its memory, as inventory tools and licence checks read them.
package struct SMBIOSTables: Sendable {
  package struct Configuration: Sendable {
    /// 16 bytes, in the order in which they are written.
    package var uuid: [UInt8]
    package var processors: Int
    /// Bytes of RAM, and where they lie.
    package var memory: UInt64
    package var ranges: [Range<UInt64>]

    package init(
      uuid: [UInt8], processors: Int, memory: UInt64, ranges: [Range<UInt64>]
    ) {
      self.uuid = Array((uuid + Array(repeating: 0, count: 16)).prefix(16))
      self.processors = processors
      self.memory = memory
      self.ranges = ranges
    }
  }

  static let anchorFile = "etc/smbios/smbios-anchor"
  static let tablesFile = "etc/smbios/smbios-tables"

  /// Handles by type, as in most machines: the type in the high byte.
  private enum Handle {
    static let enclosure: UInt16 = 0x0300
    static let processor: UInt16 = 0x0400
    static let memoryArray: UInt16 = 0x1000
    static let memoryDevice: UInt16 = 0x1100
    static let mappedArray: UInt16 = 0x1300
    static let noError: UInt16 = 0xFFFE
  }

  private static let manufacturer = "Carrel"
  private static let product = "Carrel PC"
  private static let version = "i440FX"

  /// All structures, one after another.
  private(set) var structures: [UInt8] = []
  private(set) var count = 0
  /// Where the UUID is among them.
  private(set) var uuidPlace = 0..<0
  private var longest = 0
  private let configuration: Configuration

  package init(_ configuration: Configuration) {
    self.configuration = configuration
    append(firmware, strings: [Self.manufacturer, "1", "01/01/2026"])
    uuidPlace = structures.count + 8..<structures.count + 24
    append(system, strings: [Self.manufacturer, Self.product, Self.version, Self.product])
    append(enclosure, strings: [Self.manufacturer, Self.version])
    append(processor, strings: ["CPU 0", Self.manufacturer, Self.version])
    for (index, size) in Self.deviceSizes(configuration.memory).enumerated() {
      if index == 0 { append(memoryArray, strings: []) }
      append(
        memoryDevice(index, size: size), strings: ["DIMM \(index)", Self.manufacturer])
    }
    for (index, range) in configuration.ranges.enumerated() where !range.isEmpty {
      append(mappedArray(index, range), strings: [])
    }
    append(Structure(type: 32, handle: 0x2000, [0, 0, 0, 0, 0, 0, 0]), strings: [])
    append(Structure(type: 127, handle: 0x7F00, []), strings: [])
  }

  // MARK: Delivery

  /// Adds the files that firmware takes structures and entry point from; it puts the
  /// address of the former into the latter and makes its checksums right.
  package func install(into contents: inout FirmwareContents) {
    contents.addFile(Self.anchorFile, anchor(structuresAt: 0))
    contents.addFile(Self.tablesFile, structures)
  }

  /// The entry point for structures at `address`; both lie in 0xF0000 … 0xFFFFF, the
  /// former at a multiple of 16.
  package func placed(structuresAt address: UInt32) -> (anchor: [UInt8], structures: [UInt8]) {
    (anchor(structuresAt: address), structures)
  }

  /// The 32-bit entry point, section 5.2.1.
  private func anchor(structuresAt address: UInt32) -> [UInt8] {
    var intermediate =
      Array("_DMI_".utf8) + [0] + LittleEndian.bytes(UInt16(clamping: structures.count))
      + LittleEndian.bytes(address) + LittleEndian.bytes(UInt16(clamping: count)) + [0x28]
    intermediate[5] = 0 &- intermediate.reduce(0, &+)
    var anchor =
      Array("_SM_".utf8) + [0, 0x1F, 2, 8] + LittleEndian.bytes(UInt16(clamping: longest))
      + [0, 0, 0, 0, 0, 0] + intermediate
    anchor[4] = 0 &- anchor.reduce(0, &+)
    return anchor
  }

  // MARK: Assembly

  private struct Structure {
    let type: UInt8
    let handle: UInt16
    let fields: [UInt8]

    init(type: UInt8, handle: UInt16, _ fields: [UInt8]) {
      self.type = type
      self.handle = handle
      self.fields = fields
    }
  }

  /// Appends the formatted area and the strings that it numbers from 1 (section 6.1).
  private mutating func append(_ structure: Structure, strings: [String]) {
    let start = structures.count
    structures += [structure.type, UInt8(clamping: 4 + structure.fields.count)]
    structures += LittleEndian.bytes(structure.handle) + structure.fields
    for string in strings { structures += Array(string.utf8) + [0] }
    structures += strings.isEmpty ? [0, 0] : [0]
    longest = max(longest, structures.count - start)
    count += 1
  }

  /// BIOS information, section 7.1.
  private var firmware: Structure {
    Structure(
      type: 0, handle: 0,
      [1, 2] + LittleEndian.bytes(UInt16(0xE800)) + [3, 0]
        // PCI, the BIOS can be shadowed, boots from CD, selects what to boot from.
        + LittleEndian.bytes(UInt64(1 << 7 | 1 << 12 | 1 << 15 | 1 << 16))
        // ACPI; a virtual machine.
        + [0x01, 0x10, 1, 0, 0xFF, 0xFF])
  }

  /// System information, section 7.2. The first three fields of the UUID are
  /// little-endian (section 7.2.1).
  private var system: Structure {
    let uuid = configuration.uuid
    let swapped = uuid[0..<4].reversed() + uuid[4..<6].reversed() + uuid[6..<8].reversed()
    // Woken by the power switch.
    return Structure(
      type: 1, handle: 0x0100, [1, 2, 3, 0] + swapped + uuid[8...] + [6, 0, 4])
  }

  /// System enclosure, section 7.4: "other", in a safe state.
  private var enclosure: Structure {
    Structure(
      type: 3, handle: Handle.enclosure,
      [1, 0x01, 2, 0, 0, 3, 3, 3, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0])
  }

  /// Processor information, section 7.5: one socket with all processors as cores.
  private var processor: Structure {
    let cores = UInt8(clamping: configuration.processors)
    return Structure(
      type: 4, handle: Handle.processor,
      // A central processor of another family; its identity is for CPUID to tell.
      [1, 3, 0x01, 2] + [UInt8](repeating: 0, count: 8) + [3, 0]
        + LittleEndian.bytes(UInt16(0)) + LittleEndian.bytes(UInt16(2000))
        + LittleEndian.bytes(UInt16(2000))
        // Populated and enabled; socket of no kind; caches not described.
        + [0x41, 0x06] + [UInt8](repeating: 0xFF, count: 6) + [0, 0, 0]
        + [cores, cores, cores]
        // 64 bits, several cores, execute protection, virtualized not.
        + LittleEndian.bytes(UInt16(1 << 2 | (cores > 1 ? 1 << 3 : 0) | 1 << 5))
        + LittleEndian.bytes(UInt16(0x01)))
  }

  private static let largestDevice: UInt64 = 16 << 30

  /// Memory modules of at most 16 GiB.
  private static func deviceSizes(_ memory: UInt64) -> [UInt64] {
    var sizes: [UInt64] = []
    var rest = memory
    while rest > 0 && sizes.count < 256 {
      sizes.append(min(rest, largestDevice))
      rest -= min(rest, largestDevice)
    }
    return sizes
  }

  /// Physical memory array, section 7.17: on the board, system memory, errors of many
  /// bits corrected by the host.
  private var memoryArray: Structure {
    let kibibytes = configuration.memory >> 10
    let isLarge = kibibytes >= 0x8000_0000
    return Structure(
      type: 16, handle: Handle.memoryArray,
      [3, 3, 6] + LittleEndian.bytes(isLarge ? 0x8000_0000 : UInt32(kibibytes))
        + LittleEndian.bytes(Handle.noError)
        + LittleEndian.bytes(UInt16(clamping: Self.deviceSizes(configuration.memory).count))
        + LittleEndian.bytes(isLarge ? configuration.memory : UInt64(0)))
  }

  /// Memory device, section 7.18: a DIMM of RAM.
  private func memoryDevice(_ index: Int, size: UInt64) -> Structure {
    // Below 32 GiB less a MiB, mebibytes; smaller than one, or uneven, kibibytes.
    let inMebibytes = size % (1 << 20) == 0
    let field =
      inMebibytes
      ? UInt16(clamping: size >> 20) : UInt16(clamping: min(size >> 10, 0x7FFF)) | 0x8000
    let whole = !inMebibytes && size >> 10 > 0x7FFF ? UInt16(clamping: size >> 20) : field
    return Structure(
      type: 17, handle: Handle.memoryDevice &+ UInt16(clamping: index),
      LittleEndian.bytes(Handle.memoryArray) + LittleEndian.bytes(Handle.noError)
        + LittleEndian.bytes(UInt16(64)) + LittleEndian.bytes(UInt16(64))
        + LittleEndian.bytes(whole) + [9, 0, 1, 0, 7] + LittleEndian.bytes(UInt16(1 << 2))
        + LittleEndian.bytes(UInt16(0)) + [2, 0, 0, 0, 0]
        + LittleEndian.bytes(UInt32(0)) + LittleEndian.bytes(UInt16(0))
        + [UInt8](repeating: 0, count: 6))
  }

  /// Memory array mapped address, section 7.20, in kibibytes or, beyond 4 TiB, bytes.
  private func mappedArray(_ index: Int, _ range: Range<UInt64>) -> Structure {
    let last = (range.upperBound - 1) >> 10
    let fits = last < 0xFFFF_FFFF
    return Structure(
      type: 19, handle: Handle.mappedArray &+ UInt16(clamping: index),
      LittleEndian.bytes(fits ? UInt32(range.lowerBound >> 10) : .max)
        + LittleEndian.bytes(fits ? UInt32(last) : .max)
        + LittleEndian.bytes(Handle.memoryArray) + [1]
        + LittleEndian.bytes(fits ? UInt64(0) : range.lowerBound)
        + LittleEndian.bytes(fits ? UInt64(0) : range.upperBound - 1))
  }
}

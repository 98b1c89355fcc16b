import Devices

/// A kernel that firmware starts, by a ROM of ours: it is entered in real mode, with the
/// firmware's services (Linux, Documentation/arch/x86/boot.rst, "Running the kernel").
struct FirmwareKernel {
  private let files: KernelFiles
  private let image: LinuxImage

  /// Where its parts lie ("Memory layout"): from `setup` on 32 KiB for the code, as much
  /// for its heap and stack, and the command line. Firmware has none of that once it
  /// boots something.
  private enum Place {
    static let setup: UInt32 = 0x1_0000
    static let setupLimit = 0x8000
    /// From `setup` on.
    static let heapEnd: UInt16 = 0xFE00
    static let commandLine: UInt32 = 0x2_0000
    static let kernel: UInt32 = 0x10_0000
  }

  init(_ files: KernelFiles) throws(MachineError) {
    guard let image = files.image as? LinuxImage else {
      throw MachineError(
        .configuration,
        "\(files.image.path) is an ELF file, which firmware cannot start: it has no entry for real"
          + " mode", remedy: "leave the firmware out, or give Linux's bzImage")
    }
    guard image.setup.count <= Place.setupLimit else {
      throw MachineError(
        .image,
        "\(image.path) has \(image.setup.count) bytes of code for real mode, by setup_sects; there"
          + " may be \(Place.setupLimit)")
    }
    self.files = files
    self.image = image
  }

  /// What the ROM finds in the configuration device, and the ROM.
  ///
  /// - Throws: kind `image` when the kernel or its RAM disk does not fit into RAM.
  func install(
    into contents: inout FirmwareContents, _ layout: MemoryLayoutMap
  ) throws(MachineError) {
    let limit = Self.firmwareStart(layout)
    // Some move on to where they would rather lie; none runs below where it is put.
    let end = max(UInt64(Place.kernel), image.loadAddress) + image.runtimeSize
    guard end <= limit else {
      throw MachineError(
        .image,
        "\(image.path) needs memory up to \(hexadecimal(end)), which firmware does not leave it in"
          + " \(layout.total >> 20) MiB; give the machine more")
    }
    let disk = try files.ramDiskPlace(above: end, below: limit, layout)
    contents.describeKernel(
      setup: FirmwarePart(address: Place.setup, bytes: setup(disk)),
      kernel: FirmwarePart(address: Place.kernel, bytes: Array(try image.kernel())),
      commandLine: FirmwarePart(
        address: Place.commandLine, bytes: Array(files.commandLine.utf8) + [0]),
      ramDisk: FirmwarePart(
        address: UInt32(truncatingIfNeeded: disk.lowerBound), bytes: try files.ramDisk.bytes()))
    contents.addFile(KernelROM.file, KernelROM.bytes)
  }

  /// SeaBIOS keeps up to 16 MiB at the end of RAM below 4 GiB, where there are twice as
  /// many, or 256 KiB (its BUILD_MAX_HIGHTABLE and BUILD_MIN_HIGHTABLE).
  private static func firmwareStart(_ layout: MemoryLayoutMap) -> UInt64 {
    let isLarge = layout.low >= PhysicalMap.shadowEnd + 32 << 20
    return layout.low &- (isLarge ? 16 << 20 : 256 << 10)
  }

  /// The code for real mode, with the loader's fields of the header.
  private func setup(_ disk: Range<UInt64>) -> [UInt8] {
    var bytes = image.setup
    func put(_ value: some FixedWidthInteger, at offset: Int) {
      for index in 0..<value.bitWidth / 8 {
        bytes[offset + index] = UInt8(truncatingIfNeeded: value >> (index * 8))
      }
    }
    put(UInt8(0xFF), at: 0x210)  // type_of_loader: undefined
    put(bytes[0x211] | 0x80, at: 0x211)  // loadflags: CAN_USE_HEAP
    put(UInt32(truncatingIfNeeded: disk.lowerBound), at: 0x218)  // ramdisk_image
    put(UInt32(truncatingIfNeeded: disk.count), at: 0x21C)  // ramdisk_size
    put(Place.heapEnd, at: 0x224)  // heap_end_ptr
    put(Place.commandLine, at: 0x228)  // cmd_line_ptr
    return bytes
  }
}

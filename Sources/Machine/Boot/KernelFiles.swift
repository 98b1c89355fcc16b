import LinuxSystem

/// A kernel with its initial RAM disk and command line, as files and the user give them.
struct KernelFiles {
  let image: any KernelImage
  let ramDisk: BootFile
  let commandLine: String

  /// The longest command line there is room for, with its end.
  private static let commandLineLimit = 0x1_0000

  init(kernel: String, ramDisk: String?, commandLine: String) throws(MachineError) {
    image = try Self.image(kernel)
    do {
      self.ramDisk =
        try ramDisk.map { path throws(SystemError) in try BootFile(path: path) }
        ?? BootFile(holding: [])
    } catch {
      throw MachineError(.image, "the initial RAM disk could not be read", cause: error)
    }
    let limit = min(Self.commandLineLimit - 1, image.commandLineLimit)
    guard commandLine.utf8.count <= limit, !commandLine.utf8.contains(0) else {
      throw MachineError(
        .configuration,
        "the kernel's command line has \(commandLine.utf8.count) bytes; it may have \(limit)")
    }
    self.commandLine = commandLine
  }

  private static func image(_ path: String) throws(MachineError) -> any KernelImage {
    let file: BootFile
    do {
      file = try BootFile(path: path)
    } catch {
      throw MachineError(.image, "the kernel \(path) could not be read", cause: error)
    }
    let bytes = try file.bytes()
    return LinuxImage.isOne(bytes)
      ? try LinuxImage(path: path, file, bytes) : try ELFImage(path: path, file, bytes)
  }

  /// Where the initial RAM disk goes: as high as it fits below `limit` and what the kernel
  /// says, from a page's start on.
  func ramDiskPlace(
    above end: UInt64, below limit: UInt64, _ layout: MemoryLayoutMap
  ) throws(MachineError) -> Range<UInt64> {
    guard ramDisk.count > 0 else { return 0..<0 }
    let limit = min(limit, image.ramDiskLimit &+ 1) & ~4095
    let size = (UInt64(ramDisk.count) + 4095) & ~4095
    let lowest = max(PhysicalMap.shadowEnd, end)
    guard limit >= size, limit - size >= lowest else {
      throw MachineError(
        .image,
        "the initial RAM disk of \(ramDisk.count >> 20) MiB does not fit beside the kernel in"
          + " \(layout.total >> 20) MiB; give the machine more memory")
    }
    let start = limit - size
    return start..<start + UInt64(ramDisk.count)
  }
}

/// A kernel in one of the forms that it comes in.
protocol KernelImage: Sendable {
  var path: String { get }
  /// `nil` for one that is entered in real mode only, and uses firmware.
  var start: KernelStart? { get }
  /// Memory that it takes: address and size of each part.
  var occupied: [(address: UInt64, size: UInt64)] { get }
  /// The last byte that an initial RAM disk may have.
  var ramDiskLimit: UInt64 { get }
  /// Longest command line, without its end.
  var commandLineLimit: Int { get }
  /// The "zero page" before the loader's own fields.
  var bootParameters: [UInt8] { get }

  /// Puts it into RAM; returns where it ends.
  func load(into memory: some BootMemory) throws -> UInt64
}

/// How a kernel is entered without firmware, and where.
enum KernelStart: Hashable, Sendable {
  case pvh(UInt32)
  case linux64(UInt64)
  case linux32(UInt32)
}

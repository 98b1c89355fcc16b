import LinuxSystem

/// A 64-bit (or 32-bit PVH) ELF program for x86, checked in full before anything
/// of it is used.
struct ELFImage: KernelImage {
  struct Segment: Sendable {
    let address: UInt64
    let memorySize: UInt64
    let file: Range<Int>
  }

  let path: String
  private let file: BootFile
  let is64Bit: Bool
  let entry: UInt64
  let segments: [Segment]
  /// Of the note XEN_ELFNOTE_PHYS32_ENTRY, the PVH boot protocol's.
  let pvhEntry: UInt32?

  private enum ProgramType {
    static let load: UInt32 = 1
    static let note: UInt32 = 4
  }

  /// - Parameter bytes: all of `file`.
  init(path: String, _ file: BootFile, _ bytes: [UInt8]) throws(MachineError) {
    self.path = path
    self.file = file
    guard bytes.starts(with: [0x7F, 0x45, 0x4C, 0x46]) else {
      throw MachineError(
        .image,
        "\(path) is not an ELF file, nor a bzImage; give an uncompressed ELF kernel (vmlinux) or"
          + " Linux's bzImage, or boot an ISO or a disk through the firmware")
    }
    let reader = Reader(path: path, bytes: bytes)
    is64Bit = try reader.integer(at: 4, 1) == 2
    let machine = try reader.integer(at: 18, 2)
    guard try reader.integer(at: 5, 1) == 1, machine == (is64Bit ? 62 : 3) else {
      throw MachineError(.image, "\(path) is an ELF file, but not for x86")
    }
    entry = try reader.integer(at: 24, is64Bit ? 8 : 4)
    let headers = try Self.programHeaders(reader, is64Bit)
    var segments: [Segment] = []
    var pvhEntry: UInt32?
    for header in headers {
      guard header.type == ProgramType.load || header.type == ProgramType.note else { continue }
      let range = try reader.range(header.offset, header.fileSize)
      if header.type == ProgramType.load {
        guard header.fileSize <= header.memorySize else {
          throw MachineError(.image, "\(path) has a segment that is larger in the file than loaded")
        }
        segments.append(
          Segment(address: header.address, memorySize: header.memorySize, file: range))
      } else if let found = try Self.pvhEntry(reader, range) {
        pvhEntry = found
      }
    }
    guard segments.contains(where: { $0.memorySize > 0 }) else {
      throw MachineError(.image, "\(path) has no segment to load; it is not a kernel")
    }
    self.segments = segments
    self.pvhEntry = pvhEntry
    guard pvhEntry != nil || is64Bit else {
      throw MachineError(
        .image, "\(path) is a 32-bit ELF file without a PVH entry; there is no way to start it")
    }
  }

  private struct ProgramHeader {
    let type: UInt32
    let offset: UInt64
    let address: UInt64
    let fileSize: UInt64
    let memorySize: UInt64
  }

  private static func programHeaders(_ reader: Reader, _ is64Bit: Bool)
    throws(MachineError) -> [ProgramHeader]
  {
    let word = is64Bit ? 8 : 4
    let table = try reader.integer(at: is64Bit ? 32 : 28, word)
    let entrySize = try reader.integer(at: is64Bit ? 54 : 42, 2)
    let count = try reader.integer(at: is64Bit ? 56 : 44, 2)
    guard entrySize == (is64Bit ? 56 : 32) else {
      throw MachineError(.image, "\(reader.path) has no program headers; it is not a kernel")
    }
    let range = try reader.range(table, entrySize * count)
    var headers: [ProgramHeader] = []
    for start in stride(from: range.lowerBound, to: range.upperBound, by: Int(entrySize)) {
      headers.append(
        ProgramHeader(
          type: UInt32(truncatingIfNeeded: try reader.integer(at: start, 4)),
          offset: try reader.integer(at: start + (is64Bit ? 8 : 4), word),
          address: try reader.integer(at: start + (is64Bit ? 24 : 12), word),
          fileSize: try reader.integer(at: start + (is64Bit ? 32 : 16), word),
          memorySize: try reader.integer(at: start + (is64Bit ? 40 : 20), word)))
    }
    return headers
  }

  /// Walks the notes in `range`: sizes of name and content, type, then both,
  /// each padded to four bytes.
  private static func pvhEntry(_ reader: Reader, _ range: Range<Int>)
    throws(MachineError) -> UInt32?
  {
    var at = range.lowerBound
    while range.upperBound - at >= 12 {
      let nameSize = Int(try reader.integer(at: at, 4))
      let contentSize = Int(try reader.integer(at: at + 4, 4))
      let type = try reader.integer(at: at + 8, 4)
      let content = at + 12 + (nameSize + 3) & ~3
      let isXen = nameSize == 4 && reader.bytes[(at + 12)...].starts(with: Array("Xen\0".utf8))
      if isXen && type == 18 && contentSize >= 4 {
        return UInt32(truncatingIfNeeded: try reader.integer(at: content, 4))
      }
      at = content + (contentSize + 3) & ~3
    }
    return nil
  }

  var start: KernelStart? { pvhEntry.map { .pvh($0) } ?? .linux64(entry) }

  var occupied: [(address: UInt64, size: UInt64)] {
    segments.map { ($0.address, $0.memorySize) }
  }

  /// Below what 32-bit kernels map directly.
  var ramDiskLimit: UInt64 { 0x37FF_FFFF }
  var commandLineLimit: Int { 0xFFFF }

  /// A setup header as Linux's own kernel has it, as far as 64-bit kernels look.
  var bootParameters: [UInt8] {
    var page = [UInt8](repeating: 0, count: 4096)
    page.replaceSubrange(0x1FE..<0x200, with: [0x55, 0xAA])  // boot_flag
    page.replaceSubrange(0x202..<0x208, with: [0x48, 0x64, 0x72, 0x53, 0x0C, 0x02])  // HdrS, 2.12
    page[0x211] = 1  // loadflags: loaded high
    page[0x233] = 1  // kernel_alignment: 16 MiB
    return page
  }

  /// Copies all segments to RAM.
  ///
  /// - Returns: the end of the highest.
  /// - Throws: kind `image` when one does not lie in RAM; nothing is copied then.
  func load(into memory: some BootMemory) throws(MachineError) -> UInt64 {
    var end: UInt64 = 0
    var targets: [(UnsafeMutableRawBufferPointer, Segment)] = []
    for segment in segments where segment.memorySize > 0 {
      guard let size = Int(exactly: segment.memorySize),
        let target = memory.bytes(at: segment.address, count: size)
      else {
        throw MachineError(
          .image,
          "\(path) wants \(segment.memorySize) bytes at \(hexadecimal(segment.address)), which are"
            + " not RAM in a machine of \(memory.layout.total >> 20) MiB; give it more memory or"
            + " link the kernel elsewhere")
      }
      targets.append((target, segment))
      end = max(end, segment.address + segment.memorySize)
    }
    for (target, segment) in targets {
      target.initializeMemory(as: UInt8.self, repeating: 0)
      // SAFETY: a segment has no more bytes in the file than in memory.
      let part = UnsafeMutableRawBufferPointer(rebasing: target[..<segment.file.count])
      try file.read(into: part, at: segment.file.lowerBound)
    }
    return end
  }

  /// Little-endian fields, each checked to lie inside the file.
  private struct Reader {
    let path: String
    let bytes: [UInt8]

    func range(_ offset: UInt64, _ size: UInt64) throws(MachineError) -> Range<Int> {
      let (end, wraps) = offset.addingReportingOverflow(size)
      guard !wraps, end <= UInt64(bytes.count) else {
        throw MachineError(
          .image,
          "\(path) is truncated: it refers to byte \(wraps ? offset : end), but has"
            + " \(bytes.count); copy it again")
      }
      return Int(offset)..<Int(end)
    }

    func integer(at offset: Int, _ width: Int) throws(MachineError) -> UInt64 {
      let range = try range(UInt64(offset), UInt64(width))
      return bytes[range].reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }
  }
}

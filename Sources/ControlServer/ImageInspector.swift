import Brokering
import ControlAPI
import Foundation

/// Looks at an image before a pool is made of it, so that a wrong path is an error
/// at the command line and not of every desktop later.
enum ImageInspector {
  /// Checks that desktops with so much memory can start from it.
  static func inspect(
    _ document: ImageDocument, memoryMiB: Int
  ) throws(BrokerError) -> Image {
    let path = document.path
    guard path.hasPrefix("/") else {
      throw BrokerError(
        .invalid, "image '\(path)' is not an absolute path: give the whole path on carreld's host")
    }
    let found = try kind(of: path, memoryMiB: memoryMiB)
    if let wanted = document.kind, wanted != found.rawValue {
      throw BrokerError(
        .invalid, "image '\(path)' is no \(wanted): it looks like a \(found.rawValue)")
    }
    return Image(kind: found, path: path, arguments: document.arguments ?? "")
  }

  private static func kind(
    of path: String, memoryMiB: Int
  ) throws(BrokerError) -> Image.Kind {
    let (file, size) = try open(path)
    defer { try? file.close() }
    let head = bytes(of: file, at: 0, count: 64)
    if head.starts(with: [0x7F, UInt8(ascii: "E"), UInt8(ascii: "L"), UInt8(ascii: "F")]) {
      try checkELF(file, head, path: path, size: size, memoryMiB: memoryMiB)
      return .kernel
    }
    if bytes(of: file, at: 32_769, count: 5) == [UInt8]("CD001".utf8) { return .iso }
    if head.starts(with: [UInt8(ascii: "Q"), UInt8(ascii: "F"), UInt8(ascii: "I"), 0xFB]) {
      throw BrokerError(
        .invalid, "image '\(path)' is qcow2: take it into the library with 'carrel image import'")
    }
    guard size > 0, size % 512 == 0 else {
      throw BrokerError(
        .invalid,
        "image '\(path)' is neither an ELF kernel nor an ISO, and its size of \(size) bytes is "
          + "not that of a raw disk: a disk is a multiple of 512 bytes")
    }
    return .disk
  }

  private static func open(_ path: String) throws(BrokerError) -> (FileHandle, UInt64) {
    var status = stat()
    // SAFETY: stat fills the structure given or fails.
    guard stat(path, &status) == 0 else {
      throw BrokerError(
        .invalid,
        "image '\(path)' cannot be found (\(String(cString: strerror(errno)))): give the path of "
          + "an ELF kernel, an ISO or a raw disk on carreld's host, or the name of an image ("
          + "'carrel image list')")
    }
    guard status.st_mode & S_IFMT == S_IFREG else {
      throw BrokerError(
        .invalid, "image '\(path)' is not a file: give an ELF kernel, an ISO or a raw disk")
    }
    guard let file = FileHandle(forReadingAtPath: path) else {
      throw BrokerError(
        .invalid, "image '\(path)' cannot be read by carreld: change its permissions")
    }
    return (file, UInt64(max(0, status.st_size)))
  }

  private static func bytes(of file: FileHandle, at offset: UInt64, count: Int) -> [UInt8] {
    guard (try? file.seek(toOffset: offset)) != nil, let data = try? file.read(upToCount: count)
    else { return [] }
    return [UInt8](data)
  }

  /// ELF header and program headers: everything that is to be loaded must be there.
  private static func checkELF(
    _ file: FileHandle, _ head: [UInt8], path: String, size: UInt64, memoryMiB: Int
  ) throws(BrokerError) {
    guard head.count == 64, head[4] == 1 || head[4] == 2, head[5] == 1 else {
      throw BrokerError(.invalid, "image '\(path)' is a truncated or big-endian ELF file")
    }
    let wide = head[4] == 2
    guard let machine = value(head, 18, 2), machine == 62 || machine == 3 else {
      throw BrokerError(.invalid, "image '\(path)' is an ELF file of another machine, not x86")
    }
    let table = value(head, wide ? 32 : 28, wide ? 8 : 4) ?? 0
    let entrySize = value(head, wide ? 54 : 42, 2) ?? 0
    let count = value(head, wide ? 56 : 44, 2) ?? 0
    guard count > 0, entrySize >= (wide ? 56 : 32) else {
      throw BrokerError(
        .invalid, "image '\(path)' has nothing to load: give a linked kernel, not an object file")
    }
    for index in 0..<count {
      let entry = bytes(of: file, at: table &+ index * entrySize, count: Int(entrySize))
      guard let type = value(entry, 0, 4) else {
        throw BrokerError(.invalid, "image '\(path)' is truncated in its program headers")
      }
      guard type == 1 else { continue }
      let offset = value(entry, wide ? 8 : 4, wide ? 8 : 4) ?? .max
      let length = value(entry, wide ? 32 : 16, wide ? 8 : 4) ?? .max
      let (end, overflow) = offset.addingReportingOverflow(length)
      guard !overflow, end <= size else {
        throw BrokerError(
          .invalid,
          "image '\(path)' is truncated: segment \(index) ends at \(end), the file at "
            + "\(size): copy it again")
      }
      let address = value(entry, wide ? 24 : 12, wide ? 8 : 4) ?? .max
      let wanted = value(entry, wide ? 40 : 20, wide ? 8 : 4) ?? .max
      guard wanted == 0 || isMemory(address, count: wanted, of: memoryMiB) else {
        throw BrokerError(
          .invalid,
          "image '\(path)' wants \(wanted) bytes at 0x\(String(address, radix: 16)), which are "
            + "not memory of a desktop of \(memoryMiB) MiB: give the pool more with --memory, or "
            + "link the kernel elsewhere")
      }
    }
  }

  /// Whether a desktop of that size has memory there: up to 3 GiB, and what is left
  /// of it from 4 GiB on, as on every PC.
  private static func isMemory(_ address: UInt64, count: UInt64, of memoryMiB: Int) -> Bool {
    let total = UInt64(clamping: memoryMiB).multipliedReportingOverflow(by: 1 << 20)
    guard !total.overflow else { return true }
    let (gap, fourGiB): (UInt64, UInt64) = (3 << 30, 4 << 30)
    let low = min(total.partialValue, gap)
    let (end, overflow) = address.addingReportingOverflow(count)
    guard !overflow else { return false }
    if end <= low { return true }
    return address >= fourGiB && end - fourGiB <= total.partialValue - low
  }

  private static func value(_ bytes: [UInt8], _ offset: Int, _ count: Int) -> UInt64? {
    guard offset + count <= bytes.count else { return nil }
    return bytes[offset..<offset + count].reversed().reduce(0) { $0 << 8 | UInt64($1) }
  }
}

import Glibc
import LinuxSystem

/// An open, checked and locked raw image.
struct ImageFile: Sendable {
  let path: String
  let descriptor: FileDescriptor
  let byteCount: UInt64

  /// Opens `path` and locks it: shared for reading, exclusive for writing.
  init(path: String, isReadOnly: Bool, sectorSize: Int) throws(DiskError) {
    self.path = path
    descriptor = try Self.openLocked(path, isReadOnly: isReadOnly)
    do {
      byteCount = try descriptor.size()
    } catch {
      throw DiskError(kind: .inputOutput, context: "image \(path)", cause: error)
    }
    try Self.checkSize(byteCount, sectorSize: sectorSize, path)
    try Self.checkFormat(descriptor, path)
  }

  /// Opens an image of any format and locks it: shared for reading, exclusive for writing.
  static func openLocked(
    _ path: String, isReadOnly: Bool
  ) throws(DiskError) -> FileDescriptor {
    let descriptor: FileDescriptor
    do {
      // A pipe without a writer is no image, and nothing to wait for.
      descriptor = try FileDescriptor.open(
        path, isReadOnly ? [.nonBlocking] : [.writable, .nonBlocking])
    } catch {
      throw openError(path, isReadOnly: isReadOnly, error)
    }
    try checkKind(descriptor, path)
    do {
      try descriptor.lock(exclusive: !isReadOnly)
    } catch {
      throw lockError(path, descriptor, error)
    }
    return descriptor
  }

  private static func openError(
    _ path: String, isReadOnly: Bool, _ error: SystemError
  ) -> DiskError {
    switch error.kind {
    case .notFound:
      DiskError(
        kind: .notFound, context: "image \(path) does not exist; check the path", cause: error)
    case .permissionDenied:
      DiskError(
        kind: .permissionDenied,
        context: "image \(path) may not be opened for \(isReadOnly ? "reading" : "writing");"
          + " change its owner or mode\(isReadOnly ? "" : ", or attach it read-only")",
        cause: error)
    default:
      DiskError(
        kind: error.code == EISDIR ? .notAnImage : .inputOutput, context: "image \(path)",
        cause: error)
    }
  }

  private static func checkKind(_ file: FileDescriptor, _ path: String) throws(DiskError) {
    var status = stat()
    guard fstat(file.raw, &status) == 0 else {
      throw DiskError(
        kind: .inputOutput, context: "image \(path)", cause: SystemError(code: errno, "stat"))
    }
    guard [S_IFREG, S_IFBLK].contains(status.st_mode & S_IFMT) else {
      throw DiskError(
        kind: .notAnImage,
        context: "\(path) is neither a file nor a block device; give the image itself")
    }
  }

  private static func lockError(
    _ path: String, _ file: FileDescriptor, _ error: SystemError
  ) -> DiskError {
    guard error.kind == .wouldBlock else {
      return DiskError(kind: .inputOutput, context: "image \(path)", cause: error)
    }
    let holder = LockHolder.find(of: file).map { " (process \($0))" } ?? ""
    return DiskError(
      kind: .inUse,
      context: "image \(path) is in use by another VMM\(holder);"
        + " stop that one, or give each guest a copy of its own")
  }

  private static func checkSize(
    _ size: UInt64, sectorSize: Int, _ path: String
  ) throws(DiskError) {
    guard size > 0 else {
      throw DiskError(
        kind: .oddSize, context: "image \(path) is empty; make it with truncate -s SIZE")
    }
    guard size % UInt64(sectorSize) == 0 else {
      throw DiskError(
        kind: .oddSize,
        context: "image \(path) has \(size) bytes, not a multiple of \(sectorSize):"
          + " it was cut short or is not a raw image; copy it again or convert it")
    }
  }

  /// Raw means any content, but these beginnings are other formats by mistake.
  private static func checkFormat(_ file: FileDescriptor, _ path: String) throws(DiskError) {
    var start = [UInt8](repeating: 0, count: 4)
    // SAFETY: the buffer is used only within the call.
    let isRead = start.withUnsafeMutableBytes { buffer in
      (try? file.read(into: buffer, offset: 0)) == 4
    }
    let formats: [([UInt8], String)] = [
      (Array("QFI".utf8) + [0xFB], "qcow2"), (Array("KDMV".utf8), "VMDK"),
      (Array("vhdx".utf8), "VHDX"),
    ]
    guard isRead, let (_, name) = formats.first(where: { $0.0 == start }) else { return }
    throw DiskError(
      kind: .notAnImage,
      context: "image \(path) is \(name), not raw; "
        + (name == "qcow2" ? "say format=qcow2" : "convert it with qemu-img convert -O raw"))
  }
}

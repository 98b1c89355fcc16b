import Brokering
import Glibc
import LinuxSystem
import QMP

/// A file that somebody wants in the library, looked at before a byte of it is taken
/// over. It may be hostile: one that would have other files of this host read is refused.
struct ForeignImage: Hashable, Sendable {
  enum Format: String, Hashable, Sendable {
    case raw, iso, kernel, qcow2, vmdk, vdi

    /// As `qemu-img` calls it.
    var driver: String { self == .iso ? "raw" : rawValue }
  }

  let path: String
  let format: Format

  var kind: Image.Kind {
    switch format {
    case .kernel: .kernel
    case .iso: .iso
    case .raw, .qcow2, .vmdk, .vdi: .disk
    }
  }

  /// - Throws: kind `invalid` for what cannot be taken in, `host` without `qemu-img`.
  init(path: String) throws {
    self.path = path
    guard path.hasPrefix("/") else {
      throw BrokerError(
        .invalid, "'\(path)' is not an absolute path: give the whole path on carreld's host")
    }
    let file: FileDescriptor
    do {
      file = try FileDescriptor.open(path)
    } catch {
      throw BrokerError(
        .invalid, "image file '\(path)' cannot be read: give one on carreld's host", cause: error)
    }
    guard file.isRegularFile else {
      throw BrokerError(.invalid, "'\(path)' is not a file: give an image")
    }
    format = try Self.format(of: file, path)
    switch format {
    case .kernel: break
    case .raw, .iso: try Self.check(size: Int(clamping: try file.size()), of: path)
    case .qcow2, .vmdk, .vdi: try checkContainer()
    }
  }

  private static func format(of file: FileDescriptor, _ path: String) throws -> Format {
    func bytes(_ offset: UInt64, _ count: Int) throws(SystemError) -> [UInt8] {
      var bytes = [UInt8](repeating: 0, count: count)
      var failure: SystemError?
      // SAFETY: the buffer is used only within the call.
      bytes.withUnsafeMutableBytes { buffer in
        do throws(SystemError) {
          _ = try file.read(into: buffer, offset: offset)
        } catch {
          failure = error
        }
      }
      if let failure { throw failure }
      return bytes
    }
    let head = try bytes(0, 80)
    if head.starts(with: [0x51, 0x46, 0x49, 0xFB]) { return .qcow2 }
    if head.starts(with: "KDMV".utf8) || head.starts(with: "# Disk DescriptorFile".utf8) {
      return .vmdk
    }
    if head.starts(with: [0x7F] + Array("ELF".utf8)) {
      try checkKernel(head, path)
      return .kernel
    }
    // The signature of VirtualBox's header, little-endian.
    if Array(head[64..<68]) == [0x7F, 0x10, 0xDA, 0xBE] { return .vdi }
    return try bytes(32_769, 5) == Array("CD001".utf8) ? .iso : .raw
  }

  /// Whether it fits into a desktop is seen when a pool is made of it.
  private static func checkKernel(_ head: [UInt8], _ path: String) throws(BrokerError) {
    // e_ident's data encoding, e_type (an executable, or one that may be anywhere) and
    // e_machine (i386 or x86-64).
    guard head[5] == 1, [2, 3].contains(head[16]), head[17] == 0, [3, 62].contains(head[18]),
      head[19] == 0
    else {
      throw BrokerError(
        .invalid, "'\(path)' is an ELF file, but no kernel for x86: give a linked one")
    }
  }

  private static func check(size: Int, of path: String) throws(BrokerError) {
    guard size > 0, size % 512 == 0 else {
      throw BrokerError(
        .invalid,
        "'\(path)' is no disk: \(size) bytes are not a whole number of sectors of 512; give an "
          + "ISO, an ELF kernel, or a disk as raw, qcow2, vmdk or vdi")
    }
  }

  /// Asks `qemu-img` what the header says.
  private func checkContainer() throws {
    let answer = try ImageTool.describe([
      "info", "--output=json", "-f", format.driver, "--", path,
    ])
    guard answer.isSuccess, let info = try? JSON(parsing: answer.output) else {
      throw BrokerError(
        .invalid,
        "'\(path)' is a damaged \(format.rawValue) image: "
          + ImageTool.lastLine(of: answer.errors))
    }
    let data = info["format-specific"]?["data"]
    let other: String? =
      if let name = info["full-backing-filename"]?.text ?? info["backing-filename"]?.text {
        "it is an overlay over '\(name)'"
      } else if let name = data?["data-file"]?.text {
        "its data is in '\(name)'"
      } else if format == .vmdk,
        !["monolithicSparse", "streamOptimized"]
          .contains(data?["create-type"]?.text)
      {
        "its data is in other files"
      } else {
        nil
      }
    if let other {
      throw BrokerError(
        .invalid,
        "'\(path)' is not whole: \(other); make one file of it with 'qemu-img convert -O qcow2'")
    }
    guard info["encrypted"]?.truth != true else {
      throw BrokerError(.invalid, "'\(path)' is encrypted: decrypt it with 'qemu-img convert'")
    }
    guard data?["corrupt"]?.truth != true else {
      throw BrokerError(
        .invalid, "'\(path)' is marked corrupt: repair a copy with 'qemu-img check -r all'")
    }
    try Self.check(size: info["virtual-size"]?.whole ?? 0, of: path)
  }
}

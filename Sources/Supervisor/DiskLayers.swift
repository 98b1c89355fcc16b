import Brokering
import Glibc
import LinuxSystem

/// The images that a desktop's disk is made of, each based on an earlier one or on the
/// pool's image. Nothing is written to any but the newest, which is the desktop's disk.
///
/// What is there is the truth: an image is there as a whole or not at all, and a new one
/// reads as what it is based on. One is made while no VMM writes to that, or by the VMM itself.
struct DiskLayers: Sendable {
  /// One image in the desktop's directory.
  struct Layer: Hashable, Sendable {
    let number: UInt64
    let name: String
    let format: DesktopDisk.Format
  }

  /// A copy of an image, or a disk that began empty.
  static let copyName = "disk.raw"

  /// Oldest first.
  let layers: [Layer]
  private let directory: String

  init(in directory: String) throws(SystemError) {
    self.directory = directory
    layers = try DesktopDirectory.names(in: directory).compactMap(Self.layer)
      .sorted { $0.number < $1.number }
  }

  static func name(_ number: UInt64) -> String { "disk-\(number).qcow2" }

  static func file(_ number: UInt64) -> String { number == 0 ? copyName : name(number) }

  private static func layer(_ name: String) -> Layer? {
    if name == copyName { return Layer(number: 0, name: name, format: .raw) }
    guard name.hasPrefix("disk-"), name.hasSuffix(".qcow2"),
      let number = UInt64(name.dropFirst(5).dropLast(6)), number > 0, Self.name(number) == name
    else { return nil }
    return Layer(number: number, name: name, format: .qcow2)
  }

  /// The desktop's disk; `nil` when it has none yet.
  var top: Layer? { layers.last }

  /// What the next image is called.
  var nextName: String { Self.name((top?.number ?? 0) + 1) }

  func path(_ layer: Layer) -> String { "\(directory)/\(layer.name)" }

  /// The path that a layer is based on; `nil` when it stands alone.
  ///
  /// - Throws: when that cannot be read. What is not known to be unneeded is needed.
  func base(of layer: Layer) throws(SystemError) -> String? {
    guard layer.format == .qcow2 else { return nil }
    return try Qcow2BackingName.read(path(layer)).map {
      $0.hasPrefix("/") ? $0 : "\(directory)/\($0)"
    }
  }

  /// The layer and all that it needs, newest first.
  func chain(from layer: Layer) throws(SystemError) -> [Layer] {
    var chain = [layer]
    while let last = chain.last, let base = try base(of: last),
      let next = layers.first(where: { path($0) == base && $0.number < last.number })
    {
      chain.append(next)
    }
    return chain
  }

  /// The image outside this directory that a layer comes to in the end.
  func root(of layer: Layer) throws(SystemError) -> String? {
    guard let last = try chain(from: layer).last else { return nil }
    return try base(of: last)
  }

  /// All images of desktops' disks, by the path of the image that they come to.
  static func byRoot(stateRoot: String) throws(SystemError) -> [String: [ImageDisk]] {
    var found: [String: [ImageDisk]] = [:]
    var templates: [String: String] = [:]
    for template in try TemplateDirectory.all(stateRoot: stateRoot, runtimeRoot: stateRoot) {
      let disks = try DiskLayers(in: template.path)
      for layer in disks.layers {
        guard let root = try disks.root(of: layer) else { continue }
        templates[disks.path(layer)] = root
        found[root, default: []].append(
          try disks.describe(layer, of: DesktopID(rawValue: template.name), isCurrent: false))
      }
    }
    for desktop in try DesktopDirectory.all(runtimeRoot: stateRoot, stateRoot: stateRoot) {
      let directory = DesktopDirectory(
        desktop: desktop, runtimeRoot: stateRoot, stateRoot: stateRoot)
      let disks = try DiskLayers(in: directory.state)
      for layer in disks.layers {
        guard let root = try disks.root(of: layer) else { continue }
        found[templates[root] ?? root, default: []].append(
          try disks.describe(layer, of: desktop, isCurrent: layer == disks.top))
      }
    }
    return found
  }

  private func describe(
    _ layer: Layer, of desktop: DesktopID, isCurrent: Bool
  ) throws(SystemError) -> ImageDisk {
    // SAFETY: stat is a plain C structure that the call fills or leaves.
    var status = stat()
    let isThere = stat(path(layer), &status) == 0
    // Of its own or its template's directory.
    let base = try base(of: layer).map { $0.split(separator: "/").suffix(2).joined(separator: "/") }
    return ImageDisk(
      desktop: desktop, name: layer.name, base: base,
      allocated: isThere ? UInt64(clamping: status.st_blocks) << 9 : 0, isCurrent: isCurrent)
  }
}

/// The name of the image that a qcow2 image is based on.
///
/// `Disk` reads these images whole and checks all of it, and is none of the supervisor's
/// business; this is for names that Carrel wrote itself.
enum Qcow2BackingName {
  /// As the format limits it.
  private static let longest = 1023

  /// `nil` when there is none.
  static func read(_ path: String) throws(SystemError) -> String? {
    let file = try FileDescriptor.open(path)
    let head = try bytes(of: file, at: 0, 20, path)
    guard head.starts(with: [0x51, 0x46, 0x49, 0xFB]) else {
      throw SystemError(code: EINVAL, "read \(path), which is no qcow2 image")
    }
    // Big-endian: backing_file_offset at 8, backing_file_size at 16.
    let offset = head[8..<16].reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
    let size = head[16..<20].reduce(0) { $0 << 8 | Int($1) }
    guard offset > 0, size > 0 else { return nil }
    guard size <= longest else {
      throw SystemError(code: EINVAL, "read what \(path) is based on")
    }
    return String(decoding: try bytes(of: file, at: offset, size, path), as: UTF8.self)
  }

  private static func bytes(
    of file: FileDescriptor, at offset: UInt64, _ count: Int, _ path: String
  ) throws(SystemError) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    var read = 0
    var failure: SystemError?
    // SAFETY: the buffer is used only within the call.
    bytes.withUnsafeMutableBytes { buffer in
      do throws(SystemError) {
        read = try file.read(into: buffer, offset: offset)
      } catch {
        failure = error
      }
    }
    if let failure { throw failure }
    guard read == count else { throw SystemError(code: EINVAL, "read \(path), which is cut off") }
    return bytes
  }
}

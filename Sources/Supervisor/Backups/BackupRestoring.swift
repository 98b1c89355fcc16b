import Brokering
import FoundationEssentials
import Glibc
import LinuxSystem
import QMP

/// Makes a desktop's directory of the files of a backup, which lie under `root` as they lay
/// in the state directory that they came from. They may be hostile: of what an image says it
/// is based on nothing stays.
struct BackupRestoring: Sendable {
  let manifest: BackupManifest
  let root: String
  /// What becomes the desktop's directory.
  let target: String
  let stateRoot: String
  /// Of `carrel-vmm`, which changes images.
  let program: String

  /// Blocks. `root` is used up by it.
  ///
  /// - Parameter goesOn: whether memory is wanted.
  /// - Returns: the image of the library that it needs.
  func assemble(goesOn: Bool) throws -> String? {
    try Files.makeDirectory(target)
    let image = try assembleDisk()
    if let variables = manifest.variables { try take(variables, as: "variables.fd") }
    if goesOn, let memory = manifest.memory { try assembleMemory(memory) }
    try Files.synchronizeAll(in: target)
    return image
  }

  private func take(_ path: String, as name: String) throws {
    try Files.move("\(root)/\(path)", to: "\(target)/\(name)", durably: false)
    guard chmod("\(target)/\(name)", 0o600) == 0 else {
      throw SystemError(code: errno, "change the mode of \(target)/\(name)")
    }
  }

  /// Memory that needs others finds them beside it by their names, and has one, too, until
  /// the desktop has gone on from it.
  private func assembleMemory(_ path: String) throws {
    try take(path, as: DesktopDirectory.suspendedName)
    try digHoles(in: "\(target)/\(DesktopDirectory.suspendedName)")
    let bases = (manifest.memoryBases ?? []).compactMap { manifest.memoryName(in: $0) }
    guard !bases.isEmpty, let name = manifest.memoryName(in: path) else { return }
    for (base, path) in zip(bases, manifest.memoryBases ?? []) {
      let file = SnapshotShelf.memoryFile(base)
      try take(path, as: file)
      try digHoles(in: "\(target)/\(file)")
    }
    try SnapshotShelf.noteSuspended(SavedMemory(memory: name, bases: bases), in: target)
  }

  private func assembleDisk() throws -> String? {
    guard !manifest.layers.isEmpty else { return nil }
    var base: String?
    var image: String?
    var number: UInt64 = 0
    for layer in manifest.layers {
      if layer.isRaw {
        if layer.path == manifest.image, let present = try libraryImage(layer.path) {
          image = present
          base = "raw:\(present)"
        } else {
          try take(layer.path, as: DiskLayers.copyName)
          try digHoles(in: "\(target)/\(DiskLayers.copyName)")
          base = "raw:\(DiskLayers.copyName)"
        }
        continue
      }
      number += 1
      let name = DiskLayers.name(number)
      try take(layer.path, as: name)
      try setBase(of: "\(target)/\(name)", to: base)
      base = "qcow2:\(name)"
    }
    // Nothing is ever written to the library's image.
    if number == 0, let image { try makeOverlay(over: image) }
    try checkChain(number: number, image)
    return image
  }

  /// The library's image of that name, if it is the same in every byte.
  private func libraryImage(_ path: String) throws -> String? {
    let (present, own) = ("\(stateRoot)/\(path)", "\(root)/\(path)")
    guard Files.exists(present) else { return nil }
    guard Files.exists(own) else { return present }
    return try FileComparison.areEqual(present, own) ? present : nil
  }

  private func makeOverlay(over image: String) throws {
    try ForeignLayer(path: "\(target)/\(DiskLayers.name(1))", program: program)
      .tool(["create", "--over", "raw:\(image)", "--bases", ImageDirectory.root(stateRoot)])
  }

  private func setBase(of path: String, to base: String?) throws {
    try ForeignLayer(path: path, program: program).setBase(base)
  }

  /// That a VMM will open it.
  private func checkChain(number: UInt64, _ image: String?) throws {
    let disks = try DiskLayers(in: target)
    guard let top = disks.top else { throw BrokerError(.storage, "the disk is gone") }
    guard top.format == .qcow2 else { return }
    try ForeignLayer(path: disks.path(top), program: program)
      .checkChain(bases: ImageDirectory.root(stateRoot))
  }

  private static let hole = 64 << 10

  /// Repositories do not know holes.
  private func digHoles(in path: String) throws {
    let file = try FileDescriptor.open(path, .writable)
    let size = try file.size()
    var block = [UInt8](repeating: 0, count: 1 << 20)
    var (offset, zeros): (UInt64, Range<UInt64>) = (0, 0..<0)
    // One after another they go at once: each takes a moment of its own.
    func dig(_ next: Range<UInt64>?) throws -> Bool {
      if let next, next.lowerBound == zeros.upperBound {
        zeros = zeros.lowerBound..<next.upperBound
        return true
      }
      defer { zeros = next ?? 0..<0 }
      return try zeros.isEmpty
        || file.clear(.punchHole, offset: zeros.lowerBound, count: UInt64(zeros.count))
    }
    while offset < size {
      let count = try FileComparison.read(file, into: &block, at: offset)
      guard count > 0 else { break }
      for start in stride(from: 0, to: count, by: Self.hole) {
        let part = start..<min(count, start + Self.hole)
        // SAFETY: the part is used only within the call.
        let isZero = block.withUnsafeBytes { UnsafeRawBufferPointer(rebasing: $0[part]).isZero }
        guard isZero else { continue }
        let place = offset + UInt64(start)
        guard try dig(place..<place + UInt64(part.count)) else { return }
      }
      offset += UInt64(count)
    }
    _ = try dig(nil)
  }
}

/// A qcow2 image from elsewhere, of which nothing is believed that it says it is based on.
struct ForeignLayer {
  let path: String
  /// Of `carrel-vmm`, which changes images.
  let program: String

  /// Blocks.
  ///
  /// - Parameter base: `raw:FILE` or `qcow2:FILE`, or nothing.
  func setBase(_ base: String?) throws {
    guard let base else {
      guard try Qcow2BackingName.read(path) == nil else {
        throw BrokerError(.invalid, "one of its images is based on something that is not in it")
      }
      return
    }
    try tool(["rebase", "--unsafe", "--onto", base])
    guard try Qcow2BackingName.read(path).map({ base.hasSuffix(":" + $0) }) == true else {
      throw BrokerError(.storage, "\(path) could not be based on \(base)")
    }
  }

  /// That a VMM will open it with all that it is based on. Blocks.
  ///
  /// - Parameter bases: where that may be, besides its own directory.
  func checkChain(bases: String) throws {
    try tool(["info", "--bases", bases])
  }

  fileprivate func tool(_ words: [String]) throws {
    let (isSuccess, errors) = try ImageTool.run(program, ["disk"] + words + ["--json", path])
    guard isSuccess else { throw BrokerError(.storage, "its disk cannot be used: \(errors)") }
  }
}

extension Files {
  /// Makes a directory of files durable.
  static func synchronizeAll(in directory: String) throws {
    for name in try DesktopDirectory.names(in: directory) {
      try FileDescriptor.open("\(directory)/\(name)", .writable).synchronize()
    }
    try FileDescriptor.open(directory, [.directory]).synchronize()
  }
}

/// Whether two files have the same bytes.
enum FileComparison {
  static func read(
    _ file: FileDescriptor, into block: inout [UInt8], at offset: UInt64
  ) throws(SystemError) -> Int {
    var failure: SystemError?
    // SAFETY: the buffer is used only within the call.
    let count = block.withUnsafeMutableBytes { buffer -> Int in
      do throws(SystemError) {
        return try file.read(into: buffer, offset: offset)
      } catch {
        failure = error
        return 0
      }
    }
    if let failure { throw failure }
    return count
  }

  /// Blocks.
  static func areEqual(_ first: String, _ second: String) throws(SystemError) -> Bool {
    let (left, right) = (try FileDescriptor.open(first), try FileDescriptor.open(second))
    let size = try left.size()
    guard try right.size() == size else { return false }
    var (one, other) = (
      [UInt8](repeating: 0, count: 1 << 20), [UInt8](repeating: 0, count: 1 << 20)
    )
    var offset: UInt64 = 0
    while offset < size {
      let count = try read(left, into: &one, at: offset)
      guard try read(right, into: &other, at: offset) == count, count > 0 else { return false }
      guard one[..<count] == other[..<count] else { return false }
      offset += UInt64(count)
    }
    return true
  }
}

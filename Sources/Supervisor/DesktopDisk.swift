import Brokering
import CarrelBase
import Glibc
import LinuxSystem

/// The disk that a VMM is started with.
package struct DesktopDisk: Hashable, Sendable {
  let path: String
  let format: Format
  /// The image that the VMM makes it over, if it is not there yet.
  let over: Base?
  /// Where all that it is based on may be, besides its own directory.
  let bases: [String]

  package struct Base: Hashable, Sendable {
    let path: String
    let format: Format

    package init(path: String, format: Format) {
      self.path = path
      self.format = format
    }
  }

  package enum Format: String, Hashable, Sendable {
    case raw, qcow2
  }

  package init(path: String, format: Format, over: Base? = nil, bases: [String] = []) {
    self.path = path
    self.format = format
    self.over = over
    self.bases = bases
  }

  /// As `carrel-vmm` takes it.
  func argument(bus: Hardware.DiskBus) -> String {
    "\(OptionText.escaped(path)),format=\(format.rawValue)"
      + (over.map { ",over=\($0.format.rawValue):\(OptionText.escaped($0.path))" } ?? "")
      + bases.map { ",bases=\(OptionText.escaped($0))" }.joined() + ",bus=\(bus.rawValue)"
  }
}

/// Gives a desktop its disk before it starts.
///
/// Over an image of the library, which never changes and stays while anything is based on
/// it, the disk is an overlay: it is there at once and holds only what the desktop writes.
/// Nothing protects an image elsewhere: of that the desktop has a copy.
struct DiskPreparation {
  let request: LaunchRequest
  let directory: DesktopDirectory
  /// What the desktop is cloned from, if it is.
  let template: DesktopTemplate?
  /// Told each percent of a copy, which ends if it throws.
  let progress: (Int) throws(SystemError) -> Void

  /// - Returns: `nil` for a desktop without a disk.
  func run() throws -> DesktopDisk? {
    let hasDisk = request.image.kind == .disk || request.diskMiB != nil
    if request.disk == .fresh {
      try Files.remove(directory.variables)
      try SnapshotShelf(directory: directory).removeAll()
      try directory.prepare(for: template)
    }
    if request.disk == .fresh || !hasDisk { try directory.removeDisks() }
    guard hasDisk else { return nil }
    if let disk = try present() { return disk }
    if let base = template?.disk { return overlay(over: base) }
    guard request.image.kind == .disk else {
      try makeEmpty()
      return copy
    }
    if ImageDirectory.isLibraryDisk(request.image.path, in: directory.images) {
      return overlay(over: .init(path: request.image.path, format: .raw))
    }
    try DiskCopy.make(
      from: request.image.path, to: directory.copiedDisk, draft: directory.diskDraft,
      progress: progress)
    return copy
  }

  private func present() throws(SystemError) -> DesktopDisk? {
    let layers = try DiskLayers(in: directory.state)
    return layers.top.map {
      DesktopDisk(
        path: layers.path($0), format: $0.format,
        bases: $0.format == .qcow2 ? directory.bases : [])
    }
  }

  private var copy: DesktopDisk {
    DesktopDisk(path: directory.copiedDisk, format: .raw)
  }

  private func overlay(over base: DesktopDisk.Base) -> DesktopDisk {
    DesktopDisk(
      path: "\(directory.state)/\(DiskLayers.name(1))", format: .qcow2, over: base,
      bases: directory.bases)
  }

  private func makeEmpty() throws(SystemError) {
    let file = try FileDescriptor.open(directory.diskDraft, [.writable, .create, .truncate])
    try file.setSize(UInt64(clamping: request.diskMiB ?? 0) << 20)
    try file.synchronize()
    guard rename(directory.diskDraft, directory.copiedDisk) == 0 else {
      throw SystemError(code: errno, "put \(directory.copiedDisk) in place")
    }
  }
}

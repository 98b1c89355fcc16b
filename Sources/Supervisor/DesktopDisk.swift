import Brokering
import Glibc
import LinuxSystem

/// The disk that a VMM is started with.
package struct DesktopDisk: Hashable, Sendable {
  let path: String
  let format: Format
  /// The raw image that the VMM makes it over, if it is not there yet.
  let over: String?
  /// Where all that it is based on may be, besides its own directory.
  let bases: String?

  package enum Format: String, Hashable, Sendable {
    case raw, qcow2
  }

  package init(path: String, format: Format, over: String?, bases: String?) {
    self.path = path
    self.format = format
    self.over = over
    self.bases = bases
  }

  /// As `carrel-vmm` takes it.
  func argument(bus: Hardware.DiskBus) -> String {
    "\(path),format=\(format.rawValue)" + (over.map { ",over=raw:\($0)" } ?? "")
      + (bases.map { ",bases=\($0)" } ?? "") + ",bus=\(bus.rawValue)"
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
  /// Told each percent of a copy.
  let progress: (Int) -> Void

  /// - Returns: `nil` for a desktop without a disk.
  func run() throws -> DesktopDisk? {
    let hasDisk = request.image.kind == .disk || request.diskMiB != nil
    if request.disk == .fresh { try Files.remove(directory.variables) }
    if request.disk == .fresh { try SnapshotShelf(directory: directory).removeAll() }
    if request.disk == .fresh || !hasDisk { try directory.removeDisks() }
    guard hasDisk else { return nil }
    if let disk = try present() { return disk }
    guard request.image.kind == .disk else {
      try makeEmpty()
      return copy
    }
    if request.image.path.hasPrefix(directory.images + "/") {
      return DesktopDisk(
        path: "\(directory.state)/\(DiskLayers.name(1))", format: .qcow2, over: request.image.path,
        bases: directory.images)
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
        path: layers.path($0), format: $0.format, over: nil,
        bases: $0.format == .qcow2 ? directory.images : nil)
    }
  }

  private var copy: DesktopDisk {
    DesktopDisk(path: directory.copiedDisk, format: .raw, over: nil, bases: nil)
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

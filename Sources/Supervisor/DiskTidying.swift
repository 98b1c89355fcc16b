import Brokering
import LinuxSystem

/// Keeps the chain of images under a desktop's disk short. Snapshots that were deleted leave
/// images that nobody goes back to; what they have is given to the one above them.
///
/// Only of a desktop that is off: its VMM would have to look elsewhere at the same time. Each
/// step leaves every image reading as it did, and can be done again after a crash.
struct DiskTidying {
  let directory: DesktopDirectory
  /// Of `carrel-vmm`, which changes images.
  let program: String

  /// Longer chains are shortened.
  static let mostLayers = 8
  /// A desktop with more does not start when they cannot be shortened: VMMs refuse more than 64.
  static let mostTolerated = 48

  /// Blocks.
  func run() throws {
    let shelf = SnapshotShelf(directory: directory)
    var disks = try DiskLayers(in: directory.state)
    guard let top = disks.top, try disks.chain(from: top).count > Self.mostLayers else { return }
    try shelf.sweep()
    // A backup reads them.
    guard try !shelf.records().contains(where: { $0.isBackup == true }) else { return }
    let named = Set(try shelf.records().compactMap(\.layer))
    while true {
      disks = try DiskLayers(in: directory.state)
      let chain = try disks.chain(from: top)
      guard chain.count > Self.mostLayers,
        let (layer, child, base) = try disks.unneeded(in: chain, named)
      else { return }
      let (isSuccess, errors) = try ImageTool.run(
        program,
        [
          "disk", "rebase", "--json", "--onto", base, disks.path(child),
        ] + directory.bases.flatMap { ["--bases", $0] })
      guard isSuccess else {
        throw BrokerError(
          .storage, "\(disks.path(layer)) cannot be merged with \(child.name): \(errors)")
      }
      try Files.remove(disks.path(layer), durably: true)
    }
  }
}

extension DiskLayers {
  /// One that no snapshot names and that one other image is based on, with that and what it is
  /// based on itself, as `raw:NAME` or `qcow2:NAME`.
  func unneeded(
    in chain: [Layer], _ named: Set<UInt64>
  ) throws(SystemError) -> (Layer, child: Layer, base: String)? {
    for (child, layer) in zip(chain, chain.dropFirst()) where !named.contains(layer.number) {
      var children: [Layer] = []
      for other in layers where try base(of: other) == path(layer) { children.append(other) }
      guard children == [child], let base = try base(of: layer) else { continue }
      let below = layers.first { path($0) == base }
      // What is not the desktop's own says itself what it is.
      let format = below?.format ?? (base.hasSuffix(".qcow2") ? .qcow2 : .raw)
      return (layer, child, "\(format.rawValue):\(below?.name ?? base)")
    }
    return nil
  }
}

import Brokering
import LinuxSystem

/// Keeps the chain of images under a desktop's disk short. Snapshots that were deleted leave
/// images that nobody goes back to; what they have is given to the one above them.
///
/// Of a desktop that is off; of one that runs, see `SnapshotMaking.shorten`. Each step leaves
/// every image reading as it did, and can be done again after a crash or when it was
/// interrupted; what was copied by then is there.
struct DiskTidying {
  let directory: DesktopDirectory
  /// Of `carrel-vmm`, which changes images.
  let program: String
  let interruption: Interruption
  /// Told each percent of all merging, once there is something to merge.
  let progress: (Int) -> Void

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
    disks = try DiskLayers(in: directory.state)
    var chain = try disks.chain(from: top)
    let total = min(try disks.unneeded(in: chain, named).count, chain.count - Self.mostLayers)
    guard total > 0 else { return }
    var told = -1
    for number in 0..<total {
      try interruption.check()
      guard let next = try disks.unneeded(in: chain, named).first else { return }
      try merge(next, of: disks) { percent in
        let done = (number * 100 + percent) / total
        guard done > told else { return }
        told = done
        progress(done)
      }
      disks = try DiskLayers(in: directory.state)
      chain = try disks.chain(from: top)
    }
  }

  private func merge(
    _ unneeded: DiskLayers.Unneeded, of disks: DiskLayers, progress: (Int) -> Void
  ) throws {
    let (layer, child) = (disks.path(unneeded.layer), disks.path(unneeded.child))
    progress(0)
    let (isSuccess, errors) = try ImageTool.run(
      program,
      ["disk", "rebase", "--json", "--progress", "--onto", unneeded.base, child]
        + directory.bases.flatMap { ["--bases", $0] }, interruption: interruption
    ) { line in
      if let (percent, _) = ImageMaking.parse(line) { progress(percent) }
    }
    guard isSuccess else {
      try interruption.check()
      throw BrokerError(
        .storage, "\(layer) cannot be merged with \(unneeded.child.name): \(errors)")
    }
    try Files.remove(layer, durably: true)
  }
}

extension SnapshotMaking {
  /// So many images under a desktop that runs are enough.
  private static let mostLayers = 16
  /// Of a disk, whatever its size.
  private static let longest = Duration.seconds(24 * 3600)

  /// Has the VMM take the images that nobody goes back to into the disk that it has open, where
  /// they are many, and removes them. Without it, the chain is longer, and that is all, until
  /// there are too many. Blocks.
  func shorten() {
    do {
      var disks = try DiskLayers(in: shelf.directory.state)
      guard let top = disks.top, try disks.chain(from: top).count >= Self.mostLayers else { return }
      try shelf.sweep()
      let records = try shelf.records()
      // A backup reads them.
      guard !records.contains(where: { $0.isBackup == true }) else { return }
      disks = try DiskLayers(in: shelf.directory.state)
      let chain = try disks.chain(from: top)
      let unneeded = try disks.unneeded(in: chain, Set(records.compactMap(\.layer)))
      // Those directly under the disk alone: others are based on what nobody may write.
      let taken = zip(unneeded, chain.dropFirst()).prefix { $0.layer == $1 }.map(\.0.layer)
      guard let last = taken.last else { return }
      try ControlClient(path: shelf.directory.control).stream(
        request.shape.hardware.diskBus.firstDisk, onto: try disks.base(of: last),
        within: Self.longest)
      for layer in taken { try Files.remove(disks.path(layer), durably: true) }
    } catch {
      quiescing.logger.warning(
        "disk not shortened: \(error)", metadata: ["desktop": "\(shelf.directory.desktop)"])
    }
  }
}

extension DiskLayers {
  /// A layer that can be merged with its only child.
  struct Unneeded {
    let layer: Layer
    let child: Layer
    /// What the layer is based on itself, as `raw:NAME` or `qcow2:NAME`.
    let base: String
  }

  /// Those that no snapshot names and that one other image is based on, newest first.
  func unneeded(in chain: [Layer], _ named: Set<UInt64>) throws(SystemError) -> [Unneeded] {
    var found: [Unneeded] = []
    let bases = try layers.map { layer throws(SystemError) in try base(of: layer) }
    for (child, layer) in zip(chain, chain.dropFirst()) where !named.contains(layer.number) {
      let children = bases.count { $0 == path(layer) }
      guard children == 1, let base = try base(of: layer) else { continue }
      let below = layers.first { path($0) == base }
      // What is not the desktop's own says itself what it is.
      let format = below?.format ?? (base.hasSuffix(".qcow2") ? .qcow2 : .raw)
      found.append(
        Unneeded(
          layer: layer, child: child, base: "\(format.rawValue):\(below?.name ?? base)"))
    }
    return found
  }
}

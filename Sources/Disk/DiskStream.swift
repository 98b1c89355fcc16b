import LinuxSystem

/// Takes what a guest's disk reads from the images under it into its own image, while the guest
/// uses it, so that it needs fewer of them, or none.
///
/// In this order: `copy`, over and over until it is done; `hold`; `switchOver` at one instant;
/// `finish`. Until `hold` has returned the disk is based on what it was based on, and goes on
/// after `abandon`; what was copied stays, and reads the same. A crash at any time leaves an
/// image that reads as the disk.
public final class DiskStream {
  public let disk: AttachedDisk
  /// Of the disk, in bytes.
  public let byteCount: UInt64
  private let former: Qcow2Disk
  private let between: LayersBetween
  private let base: (any ImageLayer)?
  private let name: Qcow2Options.Backing?
  private var next: Qcow2Disk?
  /// How far it is.
  public private(set) var offset: UInt64 = 0

  /// - Parameter base: the image under the disk that it is to be based on, by any path that
  ///   leads to it; `nil` for none.
  /// - Throws: kind `notFound` when it is not based on that, `unsupported` when its image is not
  ///   qcow2.
  public init(of disk: AttachedDisk, onto base: String?) throws(DiskError) {
    guard let former = disk.presentImage as? Qcow2Disk, !disk.isReadOnly else {
      throw DiskError(
        kind: .unsupported,
        context:
          "image \(disk.presentImage.path) is not a qcow2 image that may be written: it takes nothing"
          + " in from others")
    }
    let wanted = base.map { BackingChain.canonical($0) ?? $0 }
    var between: [any ImageLayer] = []
    var layer = former.image.backing
    while let current = layer, wanted == nil || BackingChain.canonical(current.path) != wanted {
      between.append(current)
      layer = (current as? Qcow2Image)?.backing
    }
    if let base, layer == nil {
      throw DiskError(
        kind: .notFound,
        context: "image \(former.path) is not based on \(base); query-block lists"
          + " what it is based on")
    }
    guard let last = between.last else {
      throw DiskError(
        kind: .unsupported,
        context: "there is nothing between image \(former.path) and \(base ?? "its own data")")
    }
    name = try Self.name(of: layer, under: last, for: former.path)
    (self.disk, self.former, self.base) = (disk, former, layer)
    self.between = LayersBetween(layers: between)
    byteCount = former.byteCount
  }

  /// What `layer` is called by the image above it, for an image at `path`.
  private static func name(
    of layer: (any ImageLayer)?, under last: any ImageLayer, for path: String
  ) throws(DiskError) -> Qcow2Options.Backing? {
    guard let layer else { return nil }
    guard let header = (last as? Qcow2Image)?.header, let bytes = header.backingName else {
      throw DiskError(
        kind: .corrupt, context: "image \(last.path) does not say what it is based on")
    }
    let called = try BackingChain.name(bytes, last.path)
    let directory = BackingChain.canonical(BackingChain.directory(of: last.path))
    let isBeside = directory == BackingChain.canonical(BackingChain.directory(of: path))
    let place = isBeside ? called : BackingChain.canonical(layer.path) ?? layer.path
    return Qcow2Options.Backing(place, layer.layers.first?.format ?? .raw)
  }

  /// What a call of `copy` did.
  public enum Step: Equatable, Sendable {
    /// So many bytes were copied.
    case copied(Int)
    /// Somebody holds the disk: it is to be tried again.
    case held
    case done
  }

  /// Takes in some more. Not under the device lock.
  ///
  /// - Throws: kind `inUse` when the disk has gone over to another image.
  public func copy() throws(DiskError) -> Step {
    guard disk.presentImage === former else { throw Self.changed(former) }
    guard offset < byteCount else { return .done }
    let portion = max(ChainOperation.portion, UInt64(former.image.geometry.clusterSize))
    let most = Int(min(portion - offset % portion, byteCount - offset))
    let step = try disk.whileNotHeld(with: former) { () throws(DiskError) in
      try former.image.populate(offset, most, from: between)
    }
    guard let step else { return .held }
    offset += UInt64(step.done)
    return .copied(step.copied)
  }

  /// Makes durable what was copied, before the disk is held, so that it is not held for long.
  public func prepare() throws(DiskError) { try former.synchronize() }

  /// What is asked of the disk from now on waits, all that was is carried out, and the image
  /// says that it is based on less. Once `copy` is done; not under the device lock.
  public func hold() throws(DiskError) {
    precondition(offset == byteCount, "not all of it was copied")
    guard disk.image === former else { throw Self.changed(former) }
    disk.hold()
    try former.synchronize()
    try former.image.setBacking(name)
    try former.makeWhole()
    let image = try Qcow2Image(
      path: former.path, storage: former.image.storage, isReadOnly: false, backing: base)
    next = try Qcow2Disk(image, deviceLock: disk.deviceLock)
  }

  /// The disk does without them now. Device lock held, held.
  public func switchOver() {
    if let next { disk.replaceImage(with: next) }
  }

  /// Others may write the images that it does without. After `switchOver`, not under the device
  /// lock.
  public func finish() {
    former.retire()
    for layer in between.layers { layer.unlockAlone() }
  }

  /// The disk goes on as it was. Not under the device lock, nor after `switchOver`.
  public func abandon() {
    next?.retire()
    disk.deviceLock { disk.letGo() }
  }

  private static func changed(_ image: Qcow2Disk) -> DiskError {
    DiskError(kind: .inUse, context: "disk \(image.path) has gone over to another image meanwhile")
  }
}

extension ImageLayer {
  /// As `unlock`, but for what it is based on.
  fileprivate func unlockAlone() {
    if let image = self as? Qcow2Image { image.storage.unlock() } else { unlock() }
  }
}

import Glibc
import LinuxSystem

/// An overlay that a disk goes over to while a guest uses it. The image that the disk had is
/// the overlay's base from then on, shared with others, and is not written any more.
///
/// In this order: made; `hold`, with which the image becomes durable and whole; `share` and
/// `switchOver` at one instant; `finish`. Until `switchOver`, `abandon` takes all of it back.
/// A crash at any time leaves an overlay that reads as the disk: before the instant it has
/// nothing of its own.
public final class DiskOverlay {
  public let disk: AttachedDisk
  public let path: String
  private let former: any FreezableImage
  private let formerFile: FileDescriptor
  private let file: FileDescriptor
  /// The image's file for reading only.
  private var base: FileDescriptor?
  private var overlay: Qcow2Disk?

  /// Makes the file, which names the disk's present image as its base.
  ///
  /// - Parameter path: absolute; nothing is there.
  public init(of disk: AttachedDisk, at path: String) throws(DiskError) {
    guard let former = disk.image as? any FreezableImage, let formerFile = former.file,
      !disk.isReadOnly
    else {
      throw DiskError(
        kind: .readOnly,
        context: "image \(disk.path) is attached read-only; an overlay would never be written")
    }
    let layers = disk.layers.count
    guard layers < BackingPolicy.mostLayers else {
      throw BackingChain.refusal(
        disk.path,
        "has \(layers) layers, and more could not be opened again; flatten it while it is not in"
          + " use, with qemu-img rebase -b ''")
    }
    let backing = try Self.name(of: former, formerFile, for: path)
    try Qcow2Image.create(path, Qcow2Options(byteCount: disk.byteCount, backing: backing))
    do {
      file = try ImageFile.openLocked(path, isReadOnly: false)
    } catch {
      unlink(path)
      throw error
    }
    (self.disk, self.path, self.former, self.formerFile) = (disk, path, former, formerFile)
  }

  /// How the overlay at `path` calls an image.
  private static func name(
    of image: any FreezableImage, _ file: FileDescriptor, for path: String
  ) throws(DiskError) -> Qcow2Options.Backing {
    // What a device is called by is what it is found by after the next start.
    let place =
      file.isRegularFile
      ? BackingChain.place(of: file)
      : BackingChain.canonical(BackingChain.directory(of: image.path)).map {
        "\($0)/\(image.path.split(separator: "/").last ?? "")"
      }
    guard let place, let format = image.layers.first?.format else {
      throw DiskError(
        kind: .notFound,
        context: "image \(image.path) has no name any more that an overlay could give; put it back")
    }
    let isBeside =
      BackingChain.canonical(BackingChain.directory(of: path)) == BackingChain.directory(of: place)
    var name = isBeside ? String(place.split(separator: "/").last ?? "") : place
    if name.contains(":"), isBeside { name = "./\(name)" }
    return Qcow2Options.Backing(try BackingChain.name(Array(name.utf8), path), format)
  }

  /// What is asked of the disk from now on waits, and all that was is carried out and durable
  /// in an image that needs no repair. Not under the device lock.
  public func hold() throws(DiskError) {
    disk.hold()
    try former.makeWhole()
    let reader: FileDescriptor
    do {
      reader = try FileDescriptor.open("/proc/self/fd/\(formerFile.raw)")
    } catch {
      throw DiskError(image: former.path, "opening it again", error)
    }
    let image = try Qcow2Image(
      path: path, storage: FileStorage(file), isReadOnly: false,
      backing: try former.layer(of: reader))
    overlay = try Qcow2Disk(image, deviceLock: disk.deviceLock)
    base = reader
  }

  /// Lets others read the image. At no time could anybody else write it. Held.
  public func share() throws(DiskError) {
    do {
      try formerFile.lock(exclusive: false)
      try base?.lock(exclusive: false)
    } catch {
      unshare()
      throw DiskError(image: former.path, "sharing its lock", error)
    }
  }

  /// Takes `share` back, as far as somebody did not begin to read.
  public func unshare() {
    try? base?.unlock()
    try? formerFile.lock(exclusive: true)
  }

  /// The disk has the overlay now. Device lock held, held and shared.
  public func switchOver() {
    if let overlay { disk.replaceImage(with: overlay) }
  }

  /// The image's threads end, and nobody has it open for writing. After `switchOver`, not under
  /// the device lock.
  public func finish() {
    former.retire()
  }

  /// The disk goes on with the image that it has, and the overlay is gone. Not under the device
  /// lock, nor after `switchOver`.
  public func abandon() {
    overlay?.retire()
    unlink(path)
    disk.deviceLock { disk.letGo() }
  }
}

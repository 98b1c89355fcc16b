import Disk

/// A disk that is to go over to a new overlay, and the overlay's file.
public struct OverlayRequest: Hashable, Sendable {
  /// The drive's name.
  public var device: String
  /// An absolute path where nothing is.
  public var file: String

  public init(device: String, file: String) {
    self.device = device
    self.file = file
  }
}

/// Disks that go over to overlays at one instant, or not at all.
final class DiskSwitch {
  private var overlays: [DiskOverlay] = []
  /// The disks have their overlays, which stay.
  private(set) var isDone = false

  /// Makes the overlays' files.
  init(_ drives: Drives, _ requests: [OverlayRequest]) throws {
    do {
      for request in requests {
        guard requests.count(where: { $0.device == request.device || $0.file == request.file }) == 1
        else {
          throw MachineError(
            .configuration, "disk \(request.device) or file \(request.file) is named twice")
        }
        let disk = try drives.disk(named: request.device)
        overlays.append(try DiskOverlay(of: disk, at: request.file))
      }
    } catch {
      abandon()
      throw MachineError(.image, "no overlay could be made", cause: error)
    }
  }

  var isEmpty: Bool { overlays.isEmpty }

  /// Makes most durable before the disks are held, so that they are not held for long.
  func prepare() throws {
    for overlay in overlays { try overlay.disk.synchronize() }
  }

  /// Not under the device lock. Guests wait for their disks until `carryOut` or `abandon`.
  func hold() throws {
    for overlay in overlays { try overlay.hold() }
  }

  /// Device lock held.
  func carryOut() throws {
    for (index, overlay) in overlays.enumerated() {
      do {
        try overlay.share()
      } catch {
        for shared in overlays[..<index] { shared.unshare() }
        throw error
      }
    }
    for overlay in overlays { overlay.switchOver() }
    isDone = true
  }

  /// Not under the device lock.
  func finish() {
    for overlay in overlays { overlay.finish() }
  }

  /// Unless it is done, disks keep their images and the files are removed. Not under the
  /// device lock.
  func abandon() {
    guard !isDone else { return }
    for overlay in overlays { overlay.abandon() }
    overlays = []
  }
}

extension Machine {
  /// Has disks go over to new overlays at one instant: their images are not written any more
  /// and are whole, durable and free for others to read when it returns.
  ///
  /// - Throws: `MachineError`, `DiskError`; all disks have the images then that they had.
  public func switchDisks(_ requests: [OverlayRequest]) throws {
    try alone {
      let disks = try DiskSwitch(board.drives, requests)
      do {
        try disks.prepare()
        try disks.hold()
        try transition.withLock {
          guard status != .ended else { throw Self.isOver }
          try board.lock.withLock { try disks.carryOut() }
        }
      } catch {
        disks.abandon()
        throw error
      }
      disks.finish()
    }
  }

  /// Only one at a time saves the machine or switches its disks.
  func alone<Result>(_ body: () throws -> Result) throws -> Result {
    let isFirst = isBeingSaved.change { isBeingSaved in
      defer { isBeingSaved = true }
      return !isBeingSaved
    }
    guard isFirst else {
      throw MachineError(
        .state, "the machine is being saved, or its disks are", remedy: "wait until that is done")
    }
    defer { isBeingSaved.change { $0 = false } }
    return try body()
  }
}

import Disk
import LinuxSystem

/// How far a disk is that takes in what it is based on.
public struct StreamProgress: Hashable, Sendable {
  /// Of the disk, in bytes.
  public let offset: UInt64
  public let length: UInt64
}

extension Machine {
  /// That `streamDisk` has something to do.
  ///
  /// - Throws: `MachineError`, `DiskError`.
  public func checkStream(_ device: String, onto base: String?) throws {
    _ = try DiskStream(of: try board.drives.disk(named: device), onto: base)
  }

  /// Has a disk take in what it reads from the images between it and `base`, while the guest
  /// runs, so that it is based on that one, or on none when it is `nil`. Blocks for as long as
  /// it takes.
  ///
  /// - Parameters:
  ///   - base: any path that leads to an image under the disk.
  ///   - pause: called after each step with the bytes that were copied, and how far it is; waits
  ///     for as long as the speed says, at least a moment where the disk was held (`nil` bytes).
  ///     `false` ends it: what was copied stays, and nothing else has changed.
  /// - Returns: whether it came to its end.
  /// - Throws: `MachineError`, `DiskError`; the disk is based on what it was based on.
  public func streamDisk(
    _ device: String, onto base: String?, pause: (Int?, StreamProgress) -> Bool
  ) throws -> Bool {
    let disk = try board.drives.disk(named: device)
    let stream = try DiskStream(of: disk, onto: base)
    func goesOn(_ bytes: Int?) -> Bool {
      pause(bytes, StreamProgress(offset: stream.offset, length: stream.byteCount))
    }
    copying: while true {
      switch try stream.copy() {
      case .done: break copying
      case .held: guard goesOn(nil) else { return false }
      case .copied(let bytes): guard goesOn(bytes) else { return false }
      }
    }
    try stream.prepare()
    while true {
      do {
        try alone { try finish(stream) }
        return true
      } catch let error as MachineError where error.kind == .state && status != .ended {
        // A snapshot is being taken.
        guard goesOn(nil) else { return false }
      }
    }
  }

  private func finish(_ stream: DiskStream) throws {
    do {
      try stream.hold()
      try transition.withLock {
        guard status != .ended else { throw Self.isOver }
        board.lock.withLock { stream.switchOver() }
      }
    } catch {
      stream.abandon()
      throw error
    }
    stream.finish()
  }
}

import Devices

/// How much memory a guest has, and what it says of it.
public struct BalloonDescription: Sendable {
  /// Bytes that the guest has kept.
  public let memory: UInt64
  /// What the guest told last, by the names of QEMU ("stat-free-memory"); memory in bytes.
  public let statistics: [String: UInt64]
  /// When it told, in seconds since 1970; 0 before it did.
  public let time: Int64
}

extension Machine {
  /// Has the guest give up memory until it has `bytes`, or take some back. It does so as
  /// far as it can and has a driver for the balloon; `balloonChanged` tells.
  ///
  /// - Throws: kind `configuration` for less than a page, kind `state` when the machine
  ///   has no balloon.
  public func setBalloon(memory bytes: UInt64) throws(MachineError) {
    guard bytes >= VirtioBalloon.pageSize else {
      throw MachineError(
        .configuration, "a guest cannot do with \(bytes) bytes of memory",
        remedy: "give the bytes that it shall have, not what it shall give up")
    }
    guard let balloon = board.virtio.balloon else { throw Self.hasNoBalloon }
    let size = configuration.memory
    board.lock.withLock { balloon.setTarget(size - min(size, bytes)) }
  }

  /// How the guest's memory is, as far as known; what it says now is known soon.
  ///
  /// - Throws: kind `state` when the machine has no balloon.
  public func readBalloon() throws(MachineError) -> BalloonDescription {
    guard let balloon = board.virtio.balloon else { throw Self.hasNoBalloon }
    return board.lock.withLock {
      let statistics = balloon.statistics
      balloon.askForStatistics()
      return BalloonDescription(
        memory: keptMemory, statistics: statistics.values, time: statistics.time)
    }
  }

  /// Bytes of the guest's memory that the host holds at present.
  public var hostMemory: UInt64 { board.memory.ram.hostBytes }

  /// On the control thread: what the guest has now.
  func tellOfBalloon() {
    announce(.balloonChanged(memory: board.lock.withLock { keptMemory }))
  }

  /// The guest may say that it gave up more than it had.
  private var keptMemory: UInt64 {
    let size = configuration.memory
    return size - min(size, board.virtio.balloon?.actual ?? 0)
  }

  private static var hasNoBalloon: MachineError {
    MachineError(.state, "the machine has no balloon", remedy: "start it without --no-balloon")
  }
}

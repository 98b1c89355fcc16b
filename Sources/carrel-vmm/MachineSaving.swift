import LinuxSystem
import Machine
import QMP

/// Saves the machine on a thread of its own, one time after the other.
final class MachineSaving: Sendable {
  private struct Work {
    var state = QMPSaveState()
    var thread: Thread?
    /// What one that holds waits for.
    var gate: EventDescriptor?
    var isOver = false
  }

  private let machine: Machine
  private let work = Guarded(Work())
  private let handler = Guarded<(@Sendable (QMPSaveState) -> Void)?>(nil)
  private let preparation = Guarded<(@Sendable () -> Void)?>(nil)

  init(_ machine: Machine) { self.machine = machine }

  /// Whoever asked for a hold may be gone; a guest that is frozen for it does not wait longer.
  private static let longestHold: Int32 = 60_000

  /// Calls `handler` whenever it came to an end; one that holds does so, too, when it holds and
  /// when it has taken the instant.
  func onEnd(_ handler: @escaping @Sendable (QMPSaveState) -> Void) {
    self.handler.change { $0 = handler }
  }

  /// Calls `preparation` before each time, on the thread that saves.
  func onStart(_ preparation: @escaping @Sendable () -> Void) {
    self.preparation.change { $0 = preparation }
  }

  var state: QMPSaveState { work.withLock { $0.state } }

  func start(_ request: QMPSaveRequest) throws(QMPError) {
    let identifier = try Self.identifier(request.identifier, "id") ?? .random()
    let snapshot = SnapshotRequest(
      path: request.path, identifier: identifier, base: try Self.identifier(request.base, "base"),
      created: UInt64(clamping: WallClock.now.seconds),
      overlays: request.overlays.map { OverlayRequest(device: $0.device, file: $0.file) },
      hasSession: request.hasSession)
    try work.withLock { work throws(QMPError) in
      guard !work.isOver, ![.active, .holding].contains(work.state.status) else {
        throw QMPError(.generic, "The machine is being saved already")
      }
      work.thread?.join()
      do {
        work.gate = request.holds ? try EventDescriptor() : nil
      } catch {
        throw QMPError(.generic, "\(error)")
      }
      work.state = QMPSaveState(
        path: request.path, identifier: "\(identifier)",
        hasOverlays: !request.overlays.isEmpty)
      do {
        work.thread = try Thread(name: "saving") { [self] in
          save(snapshot, suspends: request.suspends)
        }
      } catch {
        work.state = QMPSaveState()
        throw QMPError(.generic, "\(error)")
      }
    }
  }

  /// Has one that holds go on.
  func goOn() throws(QMPError) {
    try work.withLock { work throws(QMPError) in
      guard let gate = work.gate, [.active, .holding].contains(work.state.status) else {
        throw QMPError(.generic, "No save holds")
      }
      gate.signal()
    }
  }

  private static func identifier(
    _ text: String?, _ name: String
  ) throws(QMPError) -> MachineUUID? {
    guard let text else { return nil }
    guard let identifier = MachineUUID(text) else {
      throw QMPError(.generic, "Parameter '\(name)' expects a UUID")
    }
    return identifier
  }

  private func save(_ request: SnapshotRequest, suspends: Bool) {
    func note(_ done: UInt64, _ total: UInt64) {
      work.change {
        $0.state.transferred = done
        $0.state.total = total
      }
    }
    let holds = work.withLock { $0.gate != nil }
    func tell(_ change: (inout QMPSaveState) -> Void) {
      // Whoever sees the end may begin anew, which waits for this thread with the lock held.
      let state = work.change { work in
        change(&work.state)
        return work.state
      }
      // Only who asked for a hold waits for more than the end.
      let isWanted = [.completed, .failed].contains(state.status) || holds
      if isWanted { handler.withLock { $0 }?(state) }
    }
    preparation.withLock { $0 }?()
    do {
      let complete = { (report: SnapshotReport) in
        tell {
          $0.status = .completed
          $0.isDifferential = report.isDifferential
          $0.downtime = report.pauseNanoseconds / 1000
        }
      }
      if suspends {
        try machine.suspend(to: request, progress: note, whenDurable: complete)
      } else {
        let report = try machine.saveSnapshot(
          request, progress: note, beforeLast: { try hold(tell) },
          whenTaken: {
            tell {
              $0.isTaken = true
              if $0.isSwitched != nil { $0.isSwitched = true }
            }
          })
        complete(report)
      }
    } catch {
      tell {
        $0.status = .failed
        $0.error = "\(error)" + ($0.isSwitched == true ? "; the disks are on their overlays" : "")
      }
    }
  }

  /// Until somebody has it go on.
  private func hold(_ tell: ((inout QMPSaveState) -> Void) -> Void) throws {
    guard let gate = work.withLock({ $0.gate }) else { return }
    tell { $0.status = .holding }
    let poller = try Poller()
    try poller.add(gate.descriptor, token: 0)
    _ = try poller.wait(milliseconds: Self.longestHold)
    tell { $0.status = .active }
  }

  /// Waits for what is under way; an ended machine's saving fails soon.
  func finish() {
    let thread = work.withLock { work in
      work.isOver = true
      work.gate?.signal()
      return work.thread
    }
    thread?.join()
  }
}

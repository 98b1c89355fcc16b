import LinuxSystem
import Machine
import QMP

/// Saves the machine on a thread of its own, one time after the other.
final class MachineSaving: Sendable {
  private struct Work {
    var state = QMPSaveState()
    var thread: Thread?
    var isOver = false
  }

  private let machine: Machine
  private let work = Guarded(Work())
  private let handler = Guarded<(@Sendable (QMPSaveState) -> Void)?>(nil)

  init(_ machine: Machine) { self.machine = machine }

  /// Calls `handler` whenever it came to an end.
  func onEnd(_ handler: @escaping @Sendable (QMPSaveState) -> Void) {
    self.handler.change { $0 = handler }
  }

  var state: QMPSaveState { work.withLock { $0.state } }

  func start(_ request: QMPSaveRequest) throws(QMPError) {
    let identifier = try Self.identifier(request.identifier, "id") ?? .random()
    let snapshot = SnapshotRequest(
      path: request.path, identifier: identifier, base: try Self.identifier(request.base, "base"),
      created: UInt64(clamping: WallClock.now.seconds),
      overlays: request.overlays.map { OverlayRequest(device: $0.device, file: $0.file) })
    try work.withLock { work throws(QMPError) in
      guard !work.isOver, work.state.status != .active else {
        throw QMPError(.generic, "The machine is being saved already")
      }
      work.thread?.join()
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
    func end(_ change: (inout QMPSaveState) -> Void) {
      work.change { change(&$0.state) }
      let state = state
      handler.withLock { $0 }?(state)
    }
    do {
      let complete = { (report: SnapshotReport) in
        end {
          $0.status = .completed
          $0.isDifferential = report.isDifferential
          $0.downtime = report.pauseNanoseconds / 1000
        }
      }
      if suspends {
        try machine.suspend(to: request, progress: note, whenDurable: complete)
      } else {
        let report = try machine.saveSnapshot(
          request, progress: note,
          whenSwitched: { work.change { $0.state.isSwitched = true } })
        complete(report)
      }
    } catch {
      end {
        $0.status = .failed
        $0.error = "\(error)" + ($0.isSwitched == true ? "; the disks are on their overlays" : "")
      }
    }
  }

  /// Waits for what is under way; an ended machine's saving fails soon.
  func finish() {
    let thread = work.withLock { work in
      work.isOver = true
      return work.thread
    }
    thread?.join()
  }
}

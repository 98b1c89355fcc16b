import DeviceModel
import LinuxSystem
import Machine
import Snapshot

/// What is still to be done for a machine that went on from a snapshot, while it runs.
final class Restoring: Sendable {
  /// What a guest touches in so many seconds is what it needs first.
  static let milliseconds: Int32 = 5000

  private let machine: Machine
  private let loaded: RestoreArgument.Loaded
  /// Of the snapshot, where its working set is to be kept.
  private let path: String
  private let isRecorded: Guarded<Bool>
  private let thread = Guarded<Thread?>(nil)

  init(_ machine: Machine, _ argument: RestoreArgument, _ loaded: RestoreArgument.Loaded) {
    self.machine = machine
    self.loaded = loaded
    path = argument.path
    isRecorded = Guarded(argument.isRemoved || loaded.machine.workingSet != nil)
  }

  /// Whether `record` is still to be called.
  var isRecording: Bool { isRecorded.withLock { !$0 } }

  /// Checks what was not checked. Damage ends the machine: the guest may have seen it.
  func check() throws {
    guard let unchecked = loaded.unchecked, unchecked.byteCount > 0 else { return }
    let machine = machine
    let checking = try Thread(name: "checking") {
      do {
        try unchecked.verify { machine.endReason == nil }
      } catch {
        machine.quit(.internalError("the guest went on from a damaged snapshot: \(error)"))
      }
    }
    thread.change { $0 = checking }
  }

  /// Keeps what the guest has touched for whoever goes on from the snapshot next. Once: later
  /// calls do nothing. Before memory is saved, which touches all.
  func record() {
    let isFirst = isRecorded.change { isRecorded in
      defer { isRecorded = true }
      return !isRecorded
    }
    guard isFirst else { return }
    do {
      guard let pages = try machine.touchedPages() else { return }
      let size = Int(clamping: machine.configuration.memory)
      try WorkingSet(of: loaded.identifier, size: size, pages: pages).store(for: path)
    } catch {
      Diagnostics.report("what the guest needs first is not kept: \(error)")
    }
  }

  /// The machine is over.
  func finish() { thread.change { $0.take() }?.join() }
}

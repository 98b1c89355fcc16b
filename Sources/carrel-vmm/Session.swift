import Display
import LinuxSystem
import Machine
import VNCServer

/// A running machine with its screen and control socket, and their orderly end.
final class Session {
  private let machine: Machine
  private let display: DisplayOutput?
  private let viewers: ViewerListener?
  private let control: ControlSocket?
  private let controller: MachineController
  private let restoring: Restoring?
  private let ended: EventDescriptor

  /// What a machine is reached by.
  struct Ways {
    var vnc: ListenAddress?
    var layout = KeyboardLayout.enUS
    var displayLink: String?
    var control: String?
  }

  /// - Parameter restoring: what is to be done while a machine runs that goes on from a snapshot.
  init(_ machine: Machine, _ ways: Ways, _ restoring: Restoring? = nil) throws {
    self.restoring = restoring
    self.machine = machine
    let display =
      machine.configuration.display != .none
      ? try DisplayOutput(of: machine, path: ways.displayLink) : nil
    self.display = display
    if let address = ways.vnc, let display {
      var configuration = ViewerConfiguration()
      configuration.name = machine.configuration.name
      configuration.layout = ways.layout
      viewers = try ViewerListener(at: address.text, configuration: configuration) {
        try display.connect()
      }
    } else {
      viewers = nil
    }
    let ended = try EventDescriptor()
    self.ended = ended
    let adapter = MachineController(machine, display: display)
    controller = adapter
    if let restoring { adapter.saving.onStart { restoring.record() } }
    let control = try ways.control.map { path in
      try ControlSocket(at: path, machine: adapter)
    }
    self.control = control
    if let control {
      adapter.saving.onEnd { state in control.announce(.saved(state)) }
      adapter.jobs.onEnd { job, end in control.announce(.blockJobEnded(job, end)) }
    }
    let machineEnds = machine.configuration.endsWhenStuck
    machine.onEvent { event in
      if let control { MachineController.events(event).forEach(control.announce) }
      switch event {
      case .stuck(let reason) where !machineEnds:
        Diagnostics.report("the guest is paused until it is reset: \(reason)")
      case .ended: ended.signal()
      case .sleepRefused(let type):
        Diagnostics.report(
          "the guest asked to sleep (SLP_TYP \(type)), which this machine cannot; it goes on")
      default: break
      }
    }
  }

  /// Runs to the end.
  ///
  /// - Parameters:
  ///   - beforeStart: done when nothing else can keep the guest from running.
  ///   - whenStarted: told that it runs.
  func run(
    _ signals: SignalDescriptor, beforeStart: () throws -> Void = {}, whenStarted: () -> Void = {}
  ) -> EndReason {
    do {
      let poller = try Poller()
      try poller.add(signals.descriptor, token: 0)
      try poller.add(ended.descriptor, token: 1)
      try beforeStart()
      try machine.resume()
      whenStarted()
      try restoring?.check()
      let resumed = MonotonicClock.now
      while machine.endReason == nil {
        let events = try poller.wait(milliseconds: recordingIsDue(since: resumed))
        if events.isEmpty, recordingIsDue(since: resumed) == 0 { restoring?.record() }
        guard events.contains(where: { $0.token == 0 }) else { continue }
        while let signal = signals.next() {
          machine.quit(.signal(Self.name(of: signal)))
        }
      }
    } catch {
      machine.quit(.internalError("\(error)"))
    }
    close()
    return machine.endReason ?? .quit
  }

  /// Ends what was never run, and returns when its threads are gone.
  func abandon() {
    machine.quit(.quit)
    close()
  }

  private func close() {
    viewers?.close()
    controller.jobs.finish()
    controller.saving.finish()
    control?.finish()
    restoring?.finish()
    machine.tearDown()
  }

  /// Milliseconds until it is time to note what the guest needed; -1 when there is no such time.
  private func recordingIsDue(since resumed: UInt64) -> Int32 {
    guard let restoring, restoring.isRecording else { return -1 }
    let gone = (MonotonicClock.now - resumed) / 1_000_000
    return max(0, Restoring.milliseconds - Int32(clamping: gone))
  }

  private static func name(of signal: Signal) -> String {
    switch signal {
    case .terminate: "SIGTERM"
    case .interrupt: "SIGINT"
    default: "SIGHUP"
    }
  }
}

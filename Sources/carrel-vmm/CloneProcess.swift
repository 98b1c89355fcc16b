import ArgumentParser
import LinuxSystem
import Machine
import QMP

/// A copy of a template's process, on the way to be a clone: it makes ready what it can, waits
/// to be told who it is, and is a `carrel-vmm run` like any other from then on.
struct CloneProcess {
  private let template: MachineTemplate
  private let original: UnixSocket

  init(_ template: MachineTemplate, _ original: UnixSocket) {
    self.template = template
    self.original = original
  }

  func run() throws {
    try ProcessFork.enterNewSession()
    Signal.child.unblock()
    let signals: SignalDescriptor
    let prepared: PreparedMachine
    do {
      // Before there is any other thread: all of them inherit the mask.
      signals = try SignalDescriptor([.terminate, .interrupt, .hangUp])
      prepared = try template.prepare()
    } catch {
      // Whoever asks next is told why.
      if let message = try? original.receive(capacity: CloneRequest.longest), !message.isEnd {
        answer(.refused("\(error)"))
      }
      throw ExitCode.failure
    }
    // Control, display, and a line or socket. Where there is no room for them, it is told
    // when they are started.
    try? Thread.prepare(3)
    // Without a template there is nobody who could still ask.
    guard let message = try? original.receive(capacity: CloneRequest.longest), !message.isEnd
    else { return }
    do {
      try become(message, prepared, signals)
    } catch let error as ExitCode {
      throw error
    } catch {
      answer(.refused("\(error)"))
      throw ExitCode.failure
    }
  }

  private func become(
    _ message: UnixSocket.Message, _ prepared: consuming PreparedMachine,
    _ signals: SignalDescriptor
  ) throws {
    let request = try CloneRequest(parsing: message.bytes)
    try takeStandardDescriptors(message.descriptors)
    let runtime = try request.runtimeDirectory.map {
      try RuntimeDirectory($0, name: request.name, isDurable: false)
    }
    var rest: PreparedMachine? = consume prepared
    try Run.run(signals, runtime, whenStarted: tell) {
      guard let prepared = rest.take() else { throw ExitCode.failure }
      let machine = try prepared.become(
        try template.configuration.clone(request),
        as: request.isLinkUp ? .anotherOnline : .another)
      let ways = Session.Ways(displayLink: request.displayLink, control: request.control)
      return (try Session(machine, ways), {})
    }
  }

  /// Those that were not given lead nowhere, but for standard error, which stays.
  private func takeStandardDescriptors(_ given: [FileDescriptor]) throws {
    guard [0, 3].contains(given.count) else {
      throw QMPError(.generic, "There are \(given.count) descriptors instead of none or three")
    }
    if given.isEmpty {
      let nothing = try FileDescriptor.open("/dev/null", .writable)
      for number: Int32 in [0, 1] { try ProcessFork.setStandard(number, nothing) }
    }
    for (number, descriptor) in given.enumerated() {
      try ProcessFork.setStandard(Int32(number), descriptor)
    }
  }

  private func tell(_ problem: (any Error)?) {
    if let problem { return answer(.refused("\(problem)")) }
    let (process, startTime) = ProcessHandle.current
    answer(.started(process: process, startTime: startTime))
    Thread.dismissPrepared()
  }

  private func answer(_ answer: CloneAnswer) {
    // A template that is gone needs none.
    _ = try? original.send(answer.encoded, blocking: false)
    original.shutDown()
  }
}

import ArgumentParser
import LinuxSystem
import Machine
import QMP

/// Holds one saved machine, and makes others of it in milliseconds.
struct Template: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Make clones of a saved machine, each a process of its own.",
    discussion: """
      The options that describe the machine are those of run, and as they were when it was \
      saved. One that connects to the socket (SOCK_SEQPACKET) sends a JSON object for each \
      clone, such as {"name": "desk-7", "disk": ["/…/disk.qcow2,format=qcow2"], "control": \
      "/…"}, with values as the options of run have them, and receives {"return": {"pid": …, \
      "startTime": …}} or {"error": {"desc": …}}. Three descriptors may come with it: \
      standard input, output and error of the clone.

      Clones do not need this process once they run. SIGTERM and SIGINT end it.
      """)

  @OptionGroup var machine: Run

  @Option(help: ArgumentHelp("Take requests at this Unix socket.", valueName: "path"))
  var listen: String

  @Option(
    help: ArgumentHelp(
      "How many clones are kept ready but for who they are.", valueName: "count"))
  var prepared = 4

  func validate() throws {
    guard let restore = machine.restore, !restore.isRemoved else {
      throw ValidationError(
        "a template goes on from a saved machine, which stays: give --restore FILE alone.")
    }
    guard machine.vnc == nil, machine.displayLink == nil, machine.control == nil else {
      throw ValidationError(
        "a template itself does not run: leave out --vnc, --display-link and --control.")
    }
    guard (0...64).contains(prepared) else {
      throw ValidationError("\(prepared) prepared clones cannot be: give 0 to 64.")
    }
  }

  func run() throws {
    Signal.pipe.ignore()
    let template: MachineTemplate
    let clone: UnixSocket?
    do {
      guard let restore = machine.restore else { return }
      template = try MachineTemplate(try machine.machineConfiguration(), from: try restore.open())
      // Where it fails, clones are a little slower, or fail for the reason that they tell.
      try? template.rehearse {
        let session = try Session($0, Session.Ways())
        return { session.abandon() }
      }
      try ProcessFork.awaitSingleThread()
      clone = try serve(template)
    } catch {
      Diagnostics.report("\(error)")
      throw ExitCode.failure
    }
    // In a copy of this process.
    if let clone { try CloneProcess(template, clone).run() }
  }

  /// Serves to the end of this process, and leaves nothing open in its copies.
  ///
  /// - Returns: in a copy, its connection with the original.
  private func serve(_ template: MachineTemplate) throws -> UnixSocket? {
    let signals = try SignalDescriptor([.terminate, .interrupt, .hangUp, .child])
    let runtime = try machine.runtimeDirectory.map {
      try RuntimeDirectory($0, name: template.configuration.name)
    }
    var service = try TemplateService(at: listen, prepared: prepared, signals)
    let clone = try service.run()
    if clone == nil { runtime?.recordExit(EndReason.quit.word, detail: "the template ended") }
    return clone
  }
}

import ArgumentParser
import ControlAPI
import ControlClient

struct PoolCreate: Verb {
  static let configuration = CommandConfiguration(
    commandName: "create", abstract: "Makes a pool and its spare desktops.",
    discussion: """
      The image is one of the library (see 'carrel image list'), or an ELF kernel (booted \
      directly), an ISO (booted as CD-ROM) or a raw disk (each desktop gets a copy); which of \
      them is seen from the file.
      """)

  @Argument(help: "Name of the new pool.")
  var name: String

  @Option(
    help: "floating (fresh each session), dedicated (kept by its user) or manual.",
    completion: .list(["floating", "dedicated", "manual"]))
  var kind = "floating"

  @Option(
    help: ArgumentHelp("What desktops are started from.", valueName: "image or file"),
    completion: .file())
  var image: String

  @OptionGroup var pool: PoolOptions

  @Flag(help: "Do not wait for the spares to be ready, and keep the pool if they never are.")
  var noWait = false

  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> PoolDocument {
    var creation = PoolCreation(name: name, kind: kind, image: pool.image(image))
    creation.size = pool.size
    creation.spares = pool.spares
    creation.memoryMiB = pool.memory?.mebibytes
    creation.cpus = pool.cpus
    creation.diskMiB = pool.diskSize?.mebibytes
    creation.hardware = pool.hardware
    creation.policies = pool.policies
    let created: PoolDocument = try await client.send(.POST, APIPath("pools"), creation)
    return noWait ? created : try await waitForSpares(client, terminal)
  }

  private func waitForSpares(
    _ client: ControlClient, _ terminal: Terminal
  ) async throws -> PoolDocument {
    var wait = SpareWait()
    let answer = try await Waiting.until(
      seconds: 300,
      ask: { () async throws -> PoolDocument in try await client.get(APIPath("pools", name)) },
      problem: { _ in nil },
      progress: {
        terminal.showProgress(
          "\($0.desktops.clean) of \($0.spares) spare desktops of \(name) are ready",
          done: $0.desktops.clean, of: $0.spares)
      },
      isDone: {
        $0.desktops.failed > 0 || $0.draining
          || $0.desktops.clean + $0.desktops.assigned >= $0.spares || wait.isLong($0)
      })
    // One start that fails is tried again; a pool with desktops stays.
    guard answer.desktops.failed > 0, answer.desktops.clean + answer.desktops.assigned == 0 else {
      return answer
    }
    throw await takeBack(answer.problem ?? "see carreld's log", client, terminal)
  }

  /// A pool that cannot have desktops is not left behind half made.
  private func takeBack(
    _ problem: String, _ client: ControlClient, _ terminal: Terminal
  ) async -> CommandFailure {
    do {
      try await client.delete(APIPath("pools", name))
      try await Waiting.untilGone(
        APIPath("pools", name), client, terminal, "deleting pool \(name) again")
    } catch {
      return CommandFailure(
        "pool '\(name)' was made, but its desktops do not start: \(problem). It could not be "
          + "deleted again: see 'carrel pool show \(name)' and 'carrel doctor'", .host)
    }
    return CommandFailure(
      "pool '\(name)' was not made, as its desktops do not start: \(problem). See 'carrel doctor'; "
        + "with --no-wait the pool stays, to look into", .host)
  }

  /// It is there, and has not all of its spares yet.
  func verdict(_ answer: PoolDocument) -> CommandFailure? {
    guard !noWait, let reason = answer.waiting else { return nil }
    return CommandFailure(
      "pool '\(name)' has not all of its spares yet: \(reason). They are started as soon as they "
        + "may be: see 'carrel status', or keep fewer with 'carrel pool set \(name) --spares'",
      .host)
  }

  func render(_ answer: PoolDocument, _ terminal: Terminal) -> String {
    "Pool \(answer.name) is made, \(answer.desktops.clean) of \(answer.spares) spares are ready.\n"
      + "Next: 'carrel entitle USER \(answer.name)'"
  }
}

/// Whether spares have waited for memory for some time, without another of them getting any.
private struct SpareWait {
  private var state: (ready: Int, since: ContinuousClock.Instant)?

  mutating func isLong(_ pool: PoolDocument) -> Bool {
    guard pool.waiting != nil else {
      state = nil
      return false
    }
    let (now, ready) = (ContinuousClock.now, pool.desktops.clean)
    if let state, state.ready == ready { return now - state.since >= Waiting.patience }
    state = (ready, now)
    return false
  }
}

import ArgumentParser
import ControlAPI
import ControlClient

/// A command that begins work with backups and waits for it.
protocol BackupVerb: Verb where Answer == BackupJobDocument {
  var job: BackupJobOptions { get }
}

extension BackupVerb {
  func render(_ answer: BackupJobDocument, _ terminal: Terminal) -> String {
    job.render(answer, terminal)
  }

  func verdict(_ answer: BackupJobDocument) -> CommandFailure? { job.verdict(answer) }
}

struct BackupRun: BackupVerb {
  static let configuration = CommandConfiguration(
    commandName: "run", abstract: "Backs up a desktop, or those of a pool, which run on.",
    discussion: """
      Of one that runs, memory, devices and disk are kept as they are at one instant. Only what \
      is new is written. What was interrupted goes on when this is run again.
      """)

  @Argument(help: "A desktop or a pool.", completion: .custom(Completions.desktops))
  var subject: String

  @OptionGroup var repository: RepositoryOptions

  @Flag(help: "Of a pool, also desktops that are nobody's.")
  var all = false

  @OptionGroup var job: BackupJobOptions
  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> BackupJobDocument {
    var request = try repository.request()
    (request.subject, request.all) = (subject, all)
    return try await job.begin("run", request, client, terminal)
  }
}

struct BackupVerify: BackupVerb {
  static let configuration = CommandConfiguration(
    commandName: "verify", abstract: "Reads all backups back, and checks that each is whole.")

  @OptionGroup var repository: RepositoryOptions
  @OptionGroup var job: BackupJobOptions
  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> BackupJobDocument {
    try await job.begin("verify", try repository.request(), client, terminal)
  }
}

struct BackupRestore: BackupVerb {
  static let configuration = CommandConfiguration(
    commandName: "restore", abstract: "Makes a desktop of a backup.",
    discussion: """
      It goes on where it was when its owner logs in to it, if its pool has the hardware that the \
      backup was taken with; otherwise it boots. What the owner logs in as is told: with other \
      desktops, that may be 'ada/office-7'.
      """)

  @Argument(help: "The backup, as 'carrel backup list' calls it.")
  var backup: String

  @OptionGroup var repository: RepositoryOptions
  @OptionGroup var restore: RestoreOptions
  @OptionGroup var job: BackupJobOptions
  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> BackupJobDocument {
    var request = try repository.request()
    request.backup = backup
    restore.fill(&request)
    return try await job.begin("restore", request, client, terminal)
  }
}

struct BackupPrune: BackupVerb {
  static let configuration = CommandConfiguration(
    commandName: "prune", abstract: "Removes old backups of a desktop, or of a pool's desktops.",
    discussion: "What is kept for one reason stays, whatever the other says.")

  @Argument(
    help: "A desktop or a pool; all if left out.", completion: .custom(Completions.desktops))
  var subject: String?

  @OptionGroup var repository: RepositoryOptions

  @Option(help: ArgumentHelp("Keep the newest so many of each desktop.", valueName: "n"))
  var keepLast: Int?

  @Option(
    help: ArgumentHelp(
      "Keep those that are at most so much older than the newest: 30d, 1y6m.", valueName: "span"))
  var keepWithin: String?

  @OptionGroup var job: BackupJobOptions
  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> BackupJobDocument {
    var request = try repository.request()
    (request.subject, request.keepLast, request.keepWithin) = (subject, keepLast, keepWithin)
    return try await job.begin("prune", request, client, terminal)
  }
}

struct BackupList: Verb {
  static let configuration = CommandConfiguration(
    commandName: "list", abstract: "Lists backups, oldest first.")

  @Argument(
    help: "Only of a desktop or a pool.", completion: .custom(Completions.desktops))
  var subject: String?

  @OptionGroup var repository: RepositoryOptions
  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> [BackupDocument] {
    var request = try repository.request()
    request.subject = subject
    return try await client.send(.POST, APIPath("backups", "list"), request)
  }

  func render(_ answer: [BackupDocument], _ terminal: Terminal) -> String {
    var table = Table("BACKUP", "DESKTOP", "OWNER", "TAKEN", "MEMORY", "SIZE")
    for backup in answer {
      table.add(
        .init(backup.id), .init(backup.desktop), .init(backup.owner.orDash),
        .init(backup.created.age + " ago"), .init(backup.memory ? "yes" : "no"),
        .init(byteText(backup.bytes)))
    }
    return table.render(
      terminal, empty: "There are no backups. Make one with 'carrel backup run'")
  }
}

struct BackupJobs: Verb {
  static let configuration = CommandConfiguration(
    commandName: "jobs", abstract: "Lists what is under way with backups, and what was lately.")

  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> [BackupJobDocument] {
    try await client.get(APIPath("backups", "jobs"))
  }

  func render(_ answer: [BackupJobDocument], _ terminal: Terminal) -> String {
    var table = Table("JOB", "KIND", "STATE", "BEGUN", "WHAT")
    for job in answer {
      table.add(
        .init(job.id), .init(job.kind), .init(job.state, colour(job.state)),
        .init(job.begun.age + " ago"),
        .init(what(job)))
    }
    return table.render(terminal, empty: "Nothing was done with backups since carreld started.")
  }

  /// What went wrong, what is being done, or what was done.
  private func what(_ job: BackupJobDocument) -> String {
    let share = job.percent.map { ", \($0) %" } ?? ""
    if let text = job.problem ?? job.step.map({ $0 + share }) ?? job.notes.first { return text }
    guard job.kind != "verify" else {
      return job.results.isEmpty
        ? "there are no backups" : "backups that are whole: \(job.results.count)"
    }
    let names = job.results.map(\.desktop)
    guard !names.isEmpty else { return "nothing was to be done" }
    let more = names.count > Self.mostNames ? " and \(names.count - Self.mostNames) more" : ""
    let written = job.results.compactMap(\.addedBytes)
    return names.prefix(Self.mostNames).joined(separator: ", ") + more
      + (written.isEmpty ? "" : ", \(byteText(written.reduce(0, +))) written")
  }

  private static let mostNames = 3

  private func colour(_ state: String) -> Terminal.Colour? {
    switch state {
    case "ready": .green
    case "failed": .red
    default: .yellow
    }
  }
}

struct BackupCancel: Verb {
  static let configuration = CommandConfiguration(
    commandName: "cancel", abstract: "Ends a job that is under way; what it has stays for the next."
  )

  @Argument(help: "The job, as 'carrel backup jobs' calls it.")
  var id: String

  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> Done {
    try await client.delete(APIPath("backups", "jobs", id))
    return Done(ended: id)
  }

  func render(_ answer: Done, _ terminal: Terminal) -> String { "Job \(id) ends." }
}

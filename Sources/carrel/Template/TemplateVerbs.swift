import ArgumentParser
import ControlAPI
import ControlClient

struct TemplateCreate: Verb {
  static let configuration = CommandConfiguration(
    commandName: "create",
    abstract: "Makes a template of a pool, from which its desktops are cloned from then on.",
    discussion: """
      A desktop that nobody is given is started, and taken when it is ready: when its guest \
      agent answers, or its screen and processors rest.
      """)

  @Argument(help: "The pool.", completion: .custom(Completions.pools))
  var pool: String

  @Option(help: "What tells that it is ready: automatic, agent or screen.")
  var ready: String?

  @Option(
    help: ArgumentHelp(
      "It is ready when its guest agent finds this file.", valueName: "path"))
  var marker: String?

  @Option(help: "How long screen and processors have to rest, in seconds.")
  var settle: Int?

  @Option(help: "Give up after so many seconds.")
  var limit: Int?

  @OptionGroup var making: TemplateMakingOptions
  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> [TemplateDocument] {
    var creation = TemplateCreation(pool: pool)
    creation.ready = ready
    creation.marker = marker
    creation.settleSeconds = settle
    creation.limitSeconds = limit
    let begun: [TemplateDocument] = try await client.send(.POST, APIPath("templates"), creation)
    return try await making.wait(begun, client, terminal)
  }

  func render(_ answer: [TemplateDocument], _ terminal: Terminal) -> String {
    making.render(answer)
  }
}

struct TemplateRefresh: Verb {
  static let configuration = CommandConfiguration(
    commandName: "refresh", abstract: "Makes a new generation of a pool's template.",
    discussion:
      "Desktops are cloned from it when it is ready; the old one goes with its last clone.")

  @Argument(help: "The pool.", completion: .custom(Completions.pools))
  var pool: String

  @OptionGroup var making: TemplateMakingOptions
  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> [TemplateDocument] {
    let begun: [TemplateDocument] = try await client.post(APIPath("templates", pool, "refresh"))
    return try await making.wait(begun, client, terminal)
  }

  func render(_ answer: [TemplateDocument], _ terminal: Terminal) -> String {
    making.render(answer)
  }
}

struct TemplateList: Verb {
  static let configuration = CommandConfiguration(
    commandName: "list", abstract: "Lists the templates of pools.")

  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> [TemplateDocument] {
    try await client.get(APIPath("templates"))
  }

  func render(_ answer: [TemplateDocument], _ terminal: Terminal) -> String {
    answer.isEmpty
      ? "There are no templates. Make one of a pool with 'carrel template create POOL'"
      : renderTemplates(answer, terminal)
  }
}

struct TemplateShow: Verb {
  static let configuration = CommandConfiguration(
    commandName: "show", abstract: "Shows all generations of a pool's template.")

  @Argument(help: "The pool.", completion: .custom(Completions.pools))
  var pool: String

  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> [TemplateDocument] {
    try await client.get(APIPath("templates", pool))
  }

  func render(_ answer: [TemplateDocument], _ terminal: Terminal) -> String {
    answer.map { template in
      renderFields([
        ("template", "\(template.pool)@\(template.generation)"), ("state", template.state),
        ("step", template.step), ("problem", template.problem), ("image", template.image),
        ("taken when", template.sign), ("memory", byteText(template.memoryBytes)),
        ("disk", template.diskBytes > 0 ? byteText(template.diskBytes) : nil),
        ("clones", template.clones.isEmpty ? nil : template.clones.joined(separator: ", ")),
        ("created", template.created.description),
      ])
    }.joined(separator: "\n\n")
  }
}

struct TemplateDelete: Verb {
  static let configuration = CommandConfiguration(
    commandName: "delete", abstract: "Has a pool's desktops boot again.",
    discussion: "What desktops are based on stays until they are gone.")

  @Argument(help: "The pool.", completion: .custom(Completions.pools))
  var pool: String

  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> Done {
    try await client.delete(APIPath("templates", pool))
    return Done(deleted: pool)
  }

  func render(_ answer: Done, _ terminal: Terminal) -> String {
    "The template of pool \(pool) is deleted."
  }
}

/// What the two commands share that make templates.
struct TemplateMakingOptions: ParsableArguments {
  @Flag(help: "Do not wait until it is ready.")
  var noWait = false

  func wait(
    _ begun: [TemplateDocument], _ client: ControlClient, _ terminal: Terminal
  ) async throws -> [TemplateDocument] {
    guard !noWait, let pool = begun.last?.pool else { return begun }
    return try await Waiting.until(
      seconds: 90_000,
      ask: { () async throws -> [TemplateDocument] in
        try await client.get(APIPath("templates", pool))
      },
      problem: { templates in
        guard let last = templates.last, last.state == "failed" else { return nil }
        return "the template of pool '\(pool)' was not made: \(last.problem ?? "")"
      },
      progress: { terminal.showProgress("\(pool): \($0.last?.step ?? "waiting")") },
      isDone: { $0.allSatisfy { $0.state != "making" } && $0.last?.state != "failed" })
  }

  func render(_ answer: [TemplateDocument]) -> String {
    guard let last = answer.last else { return "" }
    return last.state == "making"
      ? "Template \(last.pool)@\(last.generation) is being made: see 'carrel template show "
        + "\(last.pool)'"
      : "Template \(last.pool)@\(last.generation) is \(last.state)"
        + (last.sign.map { " (\($0))." } ?? ".")
  }
}

private func renderTemplates(_ templates: [TemplateDocument], _ terminal: Terminal) -> String {
  var table = Table("TEMPLATE", "STATE", "MEMORY", "DISK", "CLONES", "CREATED", "WHY")
  for template in templates {
    table.add(
      .init("\(template.pool)@\(template.generation)"),
      .init(template.state, colour(template.state)), .init(byteText(template.memoryBytes)),
      .init(template.diskBytes > 0 ? byteText(template.diskBytes) : "-"),
      .init("\(template.clones.count)"), .init(template.created.age),
      .init(template.problem ?? template.step ?? template.sign ?? "-"))
  }
  return table.render(terminal, empty: "")
}

private func colour(_ state: String) -> Terminal.Colour? {
  switch state {
  case "ready": .green
  case "failed": .red
  default: .yellow
  }
}

"""LangChain, LiteLLM, the OpenAI Agents SDK and inspect_ai: each asks, and calls a tool. Arguments: client, URL."""

import asyncio
import json
import os
import sys

client, url = sys.argv[1:]
CALL = 'x <tool_call>{"name":"look","arguments":{"place":"shelf"}}</tool_call>'
SCHEMA = {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}
FUNCTION = {"name": "look", "description": "Look at a place.", "parameters": SCHEMA}
os.environ |= {"OPENAI_API_KEY": "none", "OPENAI_BASE_URL": f"{url}/v1", "OPENAI_AGENTS_DISABLE_TRACING": "1"}


def langchain():
    """A chat, a stream, and a loop of one tool call."""
    from langchain_core.messages import HumanMessage, ToolMessage
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(model="ocr@7")
    said = model.invoke("one two").content
    streamed = "".join(chunk.content for chunk in model.stream("one two"))
    bound = model.bind_tools([{"type": "function", "function": FUNCTION}])
    asked = HumanMessage(CALL)
    first = bound.invoke([asked])
    (call,) = first.tool_calls
    last = model.invoke([asked, first, ToolMessage("a key", tool_call_id=call["id"])]).content
    return {"said": said, "streamed": streamed, "call": [call["name"], call["args"]], "last": last}


def litellm():
    """A chat, a stream, and a loop of one tool call."""
    import litellm

    def ask(messages, **more):
        return litellm.completion(model="openai/ocr@7", api_base=f"{url}/v1", messages=messages, **more)

    asked = {"role": "user", "content": "one two"}
    said = ask([asked]).choices[0].message.content
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in ask([asked], stream=True))
    asked = {"role": "user", "content": CALL}
    first = ask([asked], tools=[{"type": "function", "function": FUNCTION}]).choices[0].message
    (call,) = first.tool_calls
    result = {"role": "tool", "tool_call_id": call.id, "content": "a key"}
    last = ask([asked, first, result]).choices[0].message.content
    function = [call.function.name, json.loads(call.function.arguments)]
    return {"said": said, "streamed": streamed, "call": function, "last": last}


def agents():
    """Agents on the responses API: an answer, a stream, a tool that runs here, and a turn after its result."""
    from agents import Agent, Runner, function_tool, set_tracing_disabled
    from agents.agent import StopAtTools

    set_tracing_disabled(True)
    called = []

    @function_tool
    def look(place: str) -> str:
        """Look at a place."""
        called.append(["look", {"place": place}])
        return "a key"

    plain = Agent(name="plain", model="ocr@7")
    stop = StopAtTools(stop_at_tool_names=["look"])
    looks = Agent(name="looks", model="ocr@7", tools=[look], tool_use_behavior=stop)

    async def go():
        said = (await Runner.run(plain, "one two")).final_output
        streamed = Runner.run_streamed(plain, "one two")
        async for _ in streamed.stream_events():
            pass
        first = await Runner.run(looks, CALL)
        last = await Runner.run(plain, [*first.to_input_list(), {"role": "user", "content": "so"}])
        return {"said": said, "streamed": streamed.final_output, "call": called[0], "last": last.final_output}

    return asyncio.run(go())


def inspect():
    """A chat and a tool call of inspect_ai's own model interface."""
    from inspect_ai.model import ChatMessageTool, ChatMessageUser, get_model
    from inspect_ai.tool import ToolInfo, ToolParams

    async def go():
        model = get_model("openai-api/loraloop/ocr@7", base_url=f"{url}/v1", api_key="none")
        said = (await model.generate("one two")).completion
        properties = {"place": {"type": "string"}}
        tool = ToolInfo(name="look", description="Look.", parameters=ToolParams(properties=properties))
        asked = ChatMessageUser(content=CALL)
        first = (await model.generate([asked], tools=[tool])).message
        (call,) = first.tool_calls
        result = ChatMessageTool(content="a key", tool_call_id=call.id, function=call.function)
        last = (await model.generate([asked, first, result], tools=[tool], tool_choice="none")).completion
        return {"said": said, "streamed": said, "call": [call.function, call.arguments], "last": last}

    return asyncio.run(go())


print(json.dumps({"langchain": langchain, "litellm": litellm, "agents": agents, "inspect": inspect}[client]()))
